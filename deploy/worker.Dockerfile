# The worker: torch's ordinary wheels carry CUDA; the driver comes from the host (NVIDIA Container Toolkit).
FROM python:3.11.14-slim-trixie AS build
COPY deploy/requirements-build.lock deploy/requirements-worker.lock /locks/
RUN python -m pip install --no-cache-dir --disable-pip-version-check --require-hashes --only-binary :all: \
        --requirement /locks/requirements-build.lock \
    && python -m venv --without-pip /opt/bgpanet \
    && python -m pip --python /opt/bgpanet/bin/python install --no-cache-dir --disable-pip-version-check --no-compile \
        --require-hashes --requirement /locks/requirements-worker.lock
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY bgpanet ./bgpanet
COPY migrations ./migrations
COPY services ./services
# The build sees no git, whose tags tell the version elsewhere.
ARG VERSION=0.1.0
# Compiled here, since nothing can be written later.
RUN SETUPTOOLS_SCM_PRETEND_VERSION=${VERSION} python -m pip wheel --no-cache-dir --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir /wheel . \
    && python -m pip --python /opt/bgpanet/bin/python install --no-cache-dir --disable-pip-version-check --no-deps \
        --no-index --no-compile /wheel/*.whl \
    && /opt/bgpanet/bin/python -m compileall -q -j 0 /opt/bgpanet/lib

FROM python:3.11.14-slim-trixie
# torch.compile calls a compiler. Debian keeps no older versions, so that a pinned one could not be had for long.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
RUN useradd --uid 10001 --user-group --home-dir /var/lib/bgpanet --create-home --shell /usr/sbin/nologin bgpanet
COPY --from=build /opt/bgpanet /opt/bgpanet
ENV PATH=/opt/bgpanet/bin:$PATH PYTHONUNBUFFERED=1 BGPANET_HOME=/var/lib/bgpanet \
    MPLCONFIGDIR=/tmp/matplotlib NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001:10001
WORKDIR /var/lib/bgpanet
VOLUME /var/lib/bgpanet
STOPSIGNAL SIGTERM
CMD ["bgpanet", "worker"]
