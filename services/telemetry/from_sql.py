"""What the database knows, for Prometheus: read when an API is asked, and kept for a few seconds.

Gauges are what is so now. Counters begin at 0 with the API, at the same moment for all of its processes, and count
the rows of `transitions` since: their ids ascend, but one with a smaller id may be committed later, so rows of the
last minute are counted anew each time and never added up.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from kombu.exceptions import OperationalError
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from redis.exceptions import RedisError
from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, aliased

from bgpanet.specs import SPECS
from services import leadership, queue
from services.context import Context
from services.database import now_ms
from services.fleet import LOST_MS
from services.jobs import REASONS, TRIED_AGAIN
from services.tables import TERMINAL, Attempt, Dataset, Dependency, Job, Leader, Transition, Worker
from services.telemetry import catalogue
from services.telemetry.catalogue import Series

CLASSES = ("any", "cpu", "gpu")  # of resources that are told of though nothing waits for them
KEPT_SECONDS = 5.0  # between two looks into the database, however often one is asked
SETTLED_MS = 60_000  # after which no transaction can still add an older row: see services.database.IDLE_MS

Labels = tuple[str, ...]
Values = dict[Series, dict[Labels, float]]

log = logging.getLogger(__name__)


class FromSQL(Collector):
    """The series of the database and of Redis. One for each process that serves `/metrics`.

    since: when the counters began, by the monotonic clock, which all processes of a host share.
    """

    def __init__(self, context: Context, since: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._context, self._since, self._clock = context, since, clock
        self._lock = threading.Lock()
        self._read_at = -KEPT_SECONDS
        self._known: list[Metric] = []
        self._history = History()

    def collect(self) -> Iterator[Metric]:
        """What is known, not older than `KEPT_SECONDS`. A database or Redis that is away leaves its series out."""
        with self._lock:
            if self._clock() - self._read_at >= KEPT_SECONDS:
                self._known = list(self._read())
                self._read_at = self._clock()
            known = self._known
        yield from known

    def describe(self) -> Iterable[Metric]:
        """Nothing: what there is to tell is known only when it is asked for."""
        return ()

    def _read(self) -> Iterator[Metric]:
        begun = self._clock()
        values: Values = {}
        try:
            with self._context.database.read() as session:
                now = session.scalars(select(now_ms())).one()
                values |= _jobs(session, self._context.database.is_sqlite, now)
                values |= _workers(session, now) | _scheduler(session, now)
                self._history.catch_up(session, now, now - round((self._clock() - self._since) * 1000))
                values |= self._history.values(session)
            values[catalogue.SQL_UP] = {(): 1.0}
        except SQLAlchemyError as error:
            log.warning("the database told no figures for Prometheus: %s", error)
            values = {catalogue.SQL_UP: {(): 0.0}}
        values[catalogue.SQL_SECONDS] = {(): self._clock() - begun}
        try:
            unanswered = queue.unanswered(self._context.celery, CLASSES)
            values[catalogue.WAKE_UPS_WAITING] = {(name,): float(n) for name, n in unanswered.items()}
            values[catalogue.REDIS_UP] = {(): 1.0}
        except (OperationalError, RedisError, OSError):
            values[catalogue.REDIS_UP] = {(): 0.0}
        yield from (_family(series, told) for series, told in values.items())


def _family(series: Series, values: dict[Labels, float]) -> Metric:
    made = CounterMetricFamily if series.kind == "counter" else GaugeMetricFamily
    family = made(series.name, series.help, labels=series.labels)
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family


# ── Jobs ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _jobs(session: Session, is_sqlite: bool, now: int) -> Values:
    waiting = select(Job.kind, Job.resource_class, func.count()).where(Job.wants_worker)
    running = select(Job.kind, func.count()).where(Job.state == "running", Job.worker.is_not(None))
    since = select(Job.resource_class, func.min(_waiting_since(is_sqlite))).where(Job.wants_worker)
    oldest = {name: at for name, at in session.execute(since.group_by(Job.resource_class))}
    # Of a job in the delay before its next try, the moment lies ahead.
    ages = {name: 0.0 for name in CLASSES} | {name: max(0.0, (now - at) / 1000) for name, at in oldest.items()}
    values: Values = {
        catalogue.JOBS_WAITING: {(kind, name): 0.0 for kind in SPECS for name in CLASSES},
        catalogue.OLDEST_WAITING: {(name,): age for name, age in ages.items()},
        catalogue.JOBS_RUNNING: {(kind,): 0.0 for kind in SPECS},
    }
    for kind, name, number in session.execute(waiting.group_by(Job.kind, Job.resource_class)):
        values[catalogue.JOBS_WAITING][kind, name] = float(number)
    for kind, number in session.execute(running.group_by(Job.kind)):
        values[catalogue.JOBS_RUNNING][(kind,)] = float(number)
    return values


def _waiting_since(is_sqlite: bool) -> ColumnElement[int]:
    """From when on a job that wants a worker could have been claimed: the latest of all that had to happen before."""
    child, needed = aliased(Job), aliased(Job)
    noted = select(func.max(Transition.at)).where(Transition.job_id == Job.id)
    pooled = select(func.max(child.finished_at)).where(child.parent_id == Job.id)
    of_family = or_(Dependency.job_id == Job.id, Dependency.job_id == Job.parent_id)
    followed = select(func.max(needed.finished_at)).join(Dependency, Dependency.needs == needed.id).where(of_family)
    registered = select(Dataset.ready_at).where(Dataset.id == Job.dataset_id, Job.kind != "register")
    moments = [func.coalesce(query.scalar_subquery(), 0) for query in (noted, pooled, followed, registered)]
    latest = func.max if is_sqlite else func.greatest
    return latest(Job.created_at, Job.not_before, *moments)


# ── What happened ─────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class History:
    """Counts of what happened since a moment. `settled`: the last row of `transitions` that is in `counts`."""

    settled: int | None = None
    counts: Counter[tuple[Series, Labels]] = field(default_factory=Counter)

    def catch_up(self, session: Session, now: int, since: int) -> None:
        """Adds what can't change any more. since: ms since 1970; what was before does not count."""
        if self.settled is None:
            before = select(Transition.id).where(Transition.at < since).order_by(Transition.id.desc()).limit(1)
            self.settled = session.scalar(before) or 0
        old = select(Transition.id).where(Transition.id > self.settled, Transition.at < now - SETTLED_MS)
        if (last := session.scalar(old.order_by(Transition.id.desc()).limit(1))) is not None:
            self.counts.update(_happened(session, and_(Transition.id > self.settled, Transition.id <= last)))
            self.settled = last

    def values(self, session: Session) -> Values:
        """Everything until now."""
        told = self.counts + Counter(_happened(session, Transition.id > (self.settled or 0)))
        # What has not happened yet is told as 0: Prometheus sees a rise only from a value that it knows.
        values: Values = {
            catalogue.CLAIMS: {(kind,): 0.0 for kind in SPECS},
            catalogue.GIVEN_BACK: {(kind,): 0.0 for kind in SPECS},
            catalogue.RETRIES: {(kind, reason): 0.0 for kind in SPECS for reason in (*TRIED_AGAIN, "out_of_memory")},
            catalogue.JOBS_ENDED: {(kind, *end): 0.0 for kind in SPECS for end in _ENDS},
        }
        for (series, labels), number in told.items():
            values[series][labels] = float(number)
        return values


_ENDS = (("succeeded", ""), ("cancelled", ""), *(("failed", reason) for reason in REASONS))


def _happened(session: Session, which: ColumnElement[bool]) -> dict[tuple[Series, Labels], int]:
    of_attempt = and_(Attempt.job_id == Transition.job_id, Attempt.number == Transition.attempt)
    columns = (Transition.state, Attempt.job_id.is_not(None), Job.kind, Job.reason, Attempt.outcome)
    query = select(*columns, func.count()).join(Job, Job.id == Transition.job_id).outerjoin(Attempt, of_attempt)
    counts: Counter[tuple[Series, Labels]] = Counter()
    for state, attempt, kind, reason, outcome, number in session.execute(query.where(which).group_by(*columns)):
        if state in TERMINAL:
            why = reason or "" if state == "failed" else ""
            counts[catalogue.JOBS_ENDED, (kind, state, why)] += number
        elif attempt and state == "running":
            counts[catalogue.CLAIMS, (kind,)] += number
        elif attempt and outcome is not None and outcome in REASONS:
            counts[catalogue.RETRIES, (kind, outcome)] += number
        elif attempt and state in ("queued", "paused"):
            counts[catalogue.GIVEN_BACK, (kind,)] += number
    return dict(counts)


# ── Workers and schedulers ────────────────────────────────────────────────────────────────────────────────────────

_FIGURES: dict[Series, tuple[str, float]] = {
    catalogue.WORKER_CPU: ("cpu_percent", 0.01),
    catalogue.WORKER_MEMORY_USED: ("memory_used", 1.0),
    catalogue.WORKER_MEMORY: ("memory_total", 1.0),
    catalogue.WORKER_DISK_FREE: ("disk_free", 1.0),
    catalogue.GPU_USE: ("gpu_percent", 0.01),
    catalogue.GPU_MEMORY_USED: ("gpu_memory_used", 1.0),
    catalogue.GPU_MEMORY: ("gpu_memory_total", 1.0),
    catalogue.GPU_CELSIUS: ("gpu_celsius", 1.0),
    catalogue.GPU_WATTS: ("gpu_watts", 1.0),
    catalogue.IMAGES_PER_SECOND: ("images_per_second", 1.0),
    catalogue.LAST_UPLOAD: ("checkpoint_upload_seconds", 1.0),
}
"""The figure of a heartbeat (`services.worker.figures`) that a series tells, and by what it is multiplied."""


def _workers(session: Session, now: int) -> Values:
    values: Values = {series: {} for series in (*_FIGURES, *_OF_SLOTS)}
    slots: Counter[Labels] = Counter({("ready", name): 0 for name in CLASSES})
    for row in session.scalars(select(Worker)):
        is_up = now - row.seen_at <= LOST_MS
        name = (row.name,)
        values[catalogue.WORKER_UP][name] = float(is_up)
        values[catalogue.WORKER_SILENCE][name] = max(0.0, (now - row.seen_at) / 1000)
        if not is_up:
            continue
        values[catalogue.WORKER_BUSY][name] = float(row.job_id is not None)
        slots.update((row.state, resource_class) for resource_class in row.resource_classes)
        for series, (figure, factor) in _FIGURES.items():
            if isinstance(told := row.figures.get(figure), int | float):
                values[series][name] = told * factor
    return values | {catalogue.WORKER_SLOTS: {labels: float(n) for labels, n in slots.items()}}


_OF_SLOTS = (catalogue.WORKER_UP, catalogue.WORKER_SILENCE, catalogue.WORKER_BUSY)


def _scheduler(session: Session, now: int) -> Values:
    leader: Any = session.get(Leader, "scheduler")
    if leader is None:
        return {catalogue.SCHEDULER_LEADERS: {(): 0.0}}
    told: Values = {catalogue.SCHEDULER_LEADERS: {(): float(leader.expires_at >= now)}}
    told[catalogue.SCHEDULER_TERM] = {(): float(leader.term)}
    if leader.expires_at:  # 0: it was given back, and nobody knows when
        renewed = leader.expires_at - round(leadership.SECONDS * 1000)
        told[catalogue.SCHEDULER_SILENCE] = {(): max(0.0, (now - renewed) / 1000)}
    return told
