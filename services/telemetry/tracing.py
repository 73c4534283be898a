"""Traces by OpenTelemetry, from the HTTP request over the queue to the child's epochs; off unless an address is set.

While it is off nothing here imports OpenTelemetry or does anything. A claim is no answer to a certain
wake-up, so a job's trace is kept with its row: `current` is stored when it is submitted, and each of its attempts goes
on from there, whichever worker has it. What the children do is told by the worker from their events.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

_tracer: Any = None
_provider: Any = None


def start(url: str | None, part: str, version: str) -> None:
    """Sends this process's spans to `url` by OTLP over HTTP from now on; None: traces are off.

    Raises:
        ValueError: OpenTelemetry is not installed.
    """
    global _tracer, _provider
    if url is None or _tracer is not None:
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise ValueError(f"BGPANET_TRACES_URL is set: install bgpanet-service[traces] ({error})") from None

    resource = Resource.create({"service.name": f"bgpanet-{part}", "service.version": version})
    _provider = TracerProvider(resource=resource)
    _provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=url), schedule_delay_millis=1000))
    _tracer = _provider.get_tracer("bgpanet")


def stop() -> None:
    """Sends what is left, and is off."""
    global _tracer, _provider
    if _provider is not None:
        _provider.shutdown()
    _tracer = _provider = None


def current() -> str | None:
    """The present span as a `traceparent` (W3C Trace Context); None: there is none."""
    if _tracer is None:
        return None
    from opentelemetry.propagate import inject

    carrier: dict[str, str] = {}
    inject(carrier)
    return carrier.get("traceparent")


@contextmanager
def span(name: str, parent: str | None = None, kind: str = "internal", **attributes: Any) -> Iterator[None]:
    """The block is a span: of `parent`'s trace, else of the present one, else of a new one. An error marks it."""
    if _tracer is None:
        yield
        return
    from opentelemetry.trace import SpanKind

    with _tracer.start_as_current_span(name, _context(parent), SpanKind[kind.upper()], attributes=attributes):
        yield


def mark(**attributes: Any) -> None:
    """Adds to the present span."""
    if _tracer is not None:
        from opentelemetry.trace import get_current_span

        get_current_span().set_attributes(attributes)


def was(name: str, seconds: float, parent: str | None, **attributes: Any) -> None:
    """Records a span that ends now, and began so many seconds ago."""
    if _tracer is None:
        return
    end = time.time_ns()
    made = _tracer.start_span(name, _context(parent), start_time=end - round(seconds * 1e9), attributes=attributes)
    made.end(end)


def entered(block: AbstractContextManager[None]) -> Callable[[], None]:
    """Enters a block here; what it returns leaves it."""
    block.__enter__()

    def leave() -> None:
        block.__exit__(None, None, None)

    return leave


def _context(parent: str | None) -> Any:
    from opentelemetry.propagate import extract

    return extract({"traceparent": parent}) if parent else None
