"""Counting in this process, and what it tells Prometheus.

A series is made when it is first used, so a process exports what it does and nothing else. Where several processes
serve the API, `PROMETHEUS_MULTIPROC_DIR` names a folder in which each keeps its numbers, and whichever is asked adds
them up; `bgpanet api` sets it.
"""

import functools
import os
from collections.abc import Iterable
from typing import cast

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
    start_http_server,
)
from prometheus_client.gc_collector import GCCollector
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from services.telemetry.catalogue import ALL, Series, Source

disable_created_metrics()  # type: ignore[no-untyped-call]
_REGISTRY = CollectorRegistry()


@functools.cache
def _instrument(series: Series) -> MetricWrapperBase:
    labels = series.labels
    if series.kind == "counter":
        return Counter(series.name, series.help, labels, registry=_REGISTRY)
    if series.kind == "gauge":
        return Gauge(series.name, series.help, labels, registry=_REGISTRY)
    return Histogram(series.name, series.help, labels, buckets=series.buckets, registry=_REGISTRY)


def _one(series: Series, labels: dict[str, str]) -> MetricWrapperBase:
    made = _instrument(series)
    return made.labels(**labels) if labels else made


def count(series: Series, amount: float = 1, **labels: str) -> None:
    """Adds to a counter."""
    cast(Counter, _one(series, labels)).inc(amount)


def put(series: Series, value: float, **labels: str) -> None:
    """Sets a gauge."""
    cast(Gauge, _one(series, labels)).set(value)


def observe(series: Series, value: float, **labels: str) -> None:
    """Adds one observation to a histogram."""
    cast(Histogram, _one(series, labels)).observe(value)


def begin(source: Source) -> None:
    """Has the series of this kind of process that have no labels begin at 0, so that their first event is seen."""
    for series in ALL:
        if series.source == source and not series.labels:
            _instrument(series)


def exposition(more: Iterable[Collector] = ()) -> bytes:
    """The text for Prometheus: what this process counted, all of its siblings', and `more`."""
    registry = CollectorRegistry()
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    else:
        registry.register(_REGISTRY)
    for collector in more:
        registry.register(collector)
    return generate_latest(registry)


def serve(host: str, port: int) -> None:
    """Tells this process's series at `http://host:port/metrics`, with those of its memory, CPU and open files.

    Raises:
        ValueError: nothing can listen there.
    """
    ProcessCollector(registry=_REGISTRY)
    GCCollector(registry=_REGISTRY)
    try:
        start_http_server(port, host, _REGISTRY)
    except OSError as error:
        what = f"cannot listen for Prometheus on {host}:{port} ({error.strerror})"
        raise ValueError(f"{what}; choose another BGPANET_METRICS_PORT") from None
