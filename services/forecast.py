"""What a waiting job waits for, its place in the queue, and about when it will start.

The estimate lets the jobs before it run in their order on the slots that could take it, each for as long as its like
took before: the median of those that succeeded last, of its kind on its data set, else of its kind. A slot is free when
its job's own estimate ends, else when such a median does; where neither is known it counts as never free. It knows
nothing of jobs that will be submitted later with a higher priority or that wait for something else now, nor of shares
among users that change meanwhile, nor of other slots that would take some of those before it.
"""

import heapq
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from sqlalchemy import and_, func, or_, select
from sqlalchemy.orm import Session, aliased

from services import fleet
from services.database import Database, now_ms
from services.order import Offer, in_order, servable
from services.tables import Dataset, Dependency, Job, JobLabel, Worker

WAITING = ("queued", "paused")  # states
FARTHEST = 10_000  # jobs that are looked at; a place behind them is told as the next one, without an estimate
RECENT = 300  # finished jobs that tell how long their like takes


@dataclass(frozen=True)
class Queue:
    """position: from 1, None: it is not in the queue yet. starts_in_seconds: None: not known."""

    position: int | None
    starts_in_seconds: float | None
    waits_for: list[str]


def look_ahead(database: Database, job_id: str, most_running: int | None = None) -> dict[str, Any] | None:
    """A job's `Queue` as plain data; None where it does not wait. That of a parent is its first waiting child's."""
    return look_ahead_of(database, [job_id], most_running).get(job_id)


def look_ahead_of(
    database: Database, job_ids: Collection[str], most_running: int | None = None
) -> dict[str, dict[str, Any]]:
    """`look_ahead` of several jobs, by id, of those alone that wait. The database is asked as often as for one."""
    with database.read() as session:
        jobs = _first_of(session, job_ids)
        if not jobs:
            return {}
        service, each = _Service(session), jobs.values()
        labels, reasons = _labels(session, each), _reasons(session, service, each, most_running)
        # Of slots that offer the same, which is most, one is asked about.
        serves = {offer: _served(session, offer, each) for offer in set(service.workers.values())}
        found = {}
        for job_id, job in jobs.items():
            able = [name for name, offer in service.workers.items() if job.id in serves[offer]]
            found[job_id] = asdict(_queue(service, job, able, labels.get(job.id, []), reasons[job.id]))
        return found


def _first_of(session: Session, job_ids: Collection[str]) -> dict[str, Job]:
    """Those of the jobs that wait, by id; in place of a parent its first child that waits as it does."""
    asked = {job.id: job for job in session.scalars(select(Job).where(Job.id.in_(job_ids), Job.state.in_(WAITING)))}
    parent = aliased(Job)
    like = and_(parent.id == Job.parent_id, parent.state == Job.state)
    waiting = select(Job.parent_id, func.min(Job.position).label("position")).join(parent, like)
    waiting = waiting.where(Job.parent_id.in_(asked), Job.superseded_by.is_(None)).group_by(Job.parent_id)
    first = waiting.subquery()
    at_place = and_(first.c.parent_id == Job.parent_id, first.c.position == Job.position)
    children = session.scalars(select(Job).join(first, at_place).where(Job.superseded_by.is_(None)))
    return asked | {str(child.parent_id): child for child in children}


def _queue(service: "_Service", job: Job, able: Sequence[str], labels: Sequence[str], reasons: list[str]) -> Queue:
    """able: the names of the slots that could take the job."""
    if not able:
        reasons = [*reasons, _nobody(service.seen, job, labels)]
    if not job.wants_worker:
        return Queue(None, None, reasons)
    offers = tuple(dict.fromkeys(service.workers[name] for name in able))
    line = service.line(offers or (Offer((job.resource_class,), labels=frozenset(labels)),))
    place = next((place for place, (other, _) in enumerate(line) if other == job.id), len(line))
    is_known = not reasons and place < FARTHEST
    starts_in = _starts_in(service, able, [like for _, like in line[:place]]) if is_known else None
    return Queue(place + 1, starts_in, reasons)


class _Service:
    """What the forecasts of several jobs have in common, each read when the first of them needs it."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._lines: dict[tuple[Offer, ...], list[tuple[str, tuple[str, str | None]]]] = {}

    @cached_property
    def now(self) -> int:
        return self._session.scalar(select(now_ms())) or 0

    @cached_property
    def seen(self) -> Sequence[Worker]:
        """The slots that were heard of lately."""
        lately = Worker.seen_at >= now_ms() - fleet.LOST_MS
        return self._session.scalars(select(Worker).where(lately).order_by(Worker.name)).all()

    @cached_property
    def workers(self) -> dict[str, Offer]:
        """What each slot that takes jobs offers."""
        return {row.name: fleet.offer(row) for row in self.seen if row.state == "ready"}

    @cached_property
    def running(self) -> dict[str | None, Any]:
        """The jobs that slots have, by the slot's name."""
        query = select(Job.worker, Job.kind, Job.dataset_id, Job.progress, Job.started_at)
        return {job.worker: job for job in self._session.execute(query.where(Job.worker.is_not(None)))}

    @cached_property
    def took(self) -> dict[tuple[str | None, ...], float]:
        """Seconds that the jobs took that succeeded last: medians by kind and data set, and by kind."""
        query = select(Job.kind, Job.dataset_id, Job.started_at, Job.finished_at)
        query = query.where(Job.state == "succeeded", Job.started_at.is_not(None)).order_by(Job.finished_at.desc())
        found: dict[tuple[str | None, ...], list[float]] = {}
        for kind, dataset, started, finished in self._session.execute(query.limit(RECENT)):
            seconds = ((finished or 0) - (started or 0)) / 1000
            for key in ((kind, dataset), (kind,)):
                found.setdefault(key, []).append(seconds)
        return {key: statistics.median(each) for key, each in found.items()}

    def line(self, offers: tuple[Offer, ...]) -> list[tuple[str, tuple[str, str | None]]]:
        """(id, (kind, data set)) of the jobs that those offers could take, in order."""
        if offers not in self._lines:
            ordered = in_order(or_(*[servable(offer) for offer in offers])).limit(FARTHEST)
            rows = self._session.execute(ordered.add_columns(Job.kind, Job.dataset_id))
            self._lines[offers] = [(job_id, (kind, dataset)) for job_id, kind, dataset in rows]
        return self._lines[offers]


def _served(session: Session, offer: Offer, jobs: Collection[Job]) -> set[str]:
    """The ids of those jobs that ask for nothing that the offer lacks."""
    return set(session.scalars(select(Job.id).where(Job.id.in_([job.id for job in jobs]), servable(offer))))


def _labels(session: Session, jobs: Collection[Job]) -> dict[str, list[str]]:
    query = select(JobLabel.job_id, JobLabel.label).where(JobLabel.job_id.in_([job.id for job in jobs]))
    found: dict[str, list[str]] = {}
    for job_id, label in session.execute(query.order_by(JobLabel.label)):
        found.setdefault(job_id, []).append(label)
    return found


def _nobody(seen: Sequence[Worker], job: Job, labels: Sequence[str]) -> str:
    """Why no worker could take a job."""
    if not seen:
        return "no worker is running"
    if all(row.state != "ready" for row in seen):
        told = [f"{row.name} is {row.state}" + (f" ({row.why})" if row.why else "") for row in seen]
        return f"no worker takes jobs now: {', '.join(told)}"
    asked = [] if job.resource_class == "any" else [job.resource_class]
    asked += [*labels, *([] if job.memory_gb is None else [f"{job.memory_gb:.4g} GB"])]
    asked += [] if job.weights is None else [f"the ImageNet weights {job.weights}"]
    return f"no worker that takes jobs now has what it asks for: {', '.join(asked)}"


def _reasons(
    session: Session, service: _Service, jobs: Collection[Job], most_running: int | None
) -> dict[str, list[str]]:
    """What stands in the way of each job, by its id, besides other jobs and a want of workers."""
    registering = _registering(session, jobs)
    needs = _needs(session, jobs)
    running = {} if most_running is None else _running_of(session, {job.created_by for job in jobs})
    found = {}
    for job in jobs:
        reasons = ["it is paused"] if job.state == "paused" else []
        if job.kind != "register" and job.dataset_id in registering:
            reasons.append(registering[job.dataset_id])
        reasons += [f"job {other.id} ({other.name}) is {other.state}{_done(other)}" for other in needs[job.id]]
        wait = job.not_before - service.now
        if wait > 0:
            reasons.append(f"an attempt was lost; the next one begins in {wait / 1000:.0f} s")
        if most_running is not None and running.get(job.created_by, 0) >= most_running:
            reasons.append(f"{job.created_by} has {most_running} jobs running, which is the limit")
        found[job.id] = reasons
    return found


def _registering(session: Session, jobs: Collection[Job]) -> dict[str, str]:
    """What is said of those of their data sets that are being registered, by id."""
    query = select(Dataset.id, Dataset.name, Job).outerjoin(Job, Job.id == Dataset.job_id)
    query = query.where(Dataset.id.in_({job.dataset_id for job in jobs if job.dataset_id}))
    rows = session.execute(query.where(Dataset.state == "registering"))
    return {dataset: f"data set {name} is being registered{_done(job)}" for dataset, name, job in rows}


def _needs(session: Session, jobs: Collection[Job]) -> dict[str, list[Job]]:
    """The jobs that each job, or its parent, has to wait for."""
    who = {job.id: {job.id, job.parent_id} for job in jobs}
    query = select(Dependency.job_id, Job).join(Job, Dependency.needs == Job.id).order_by(Job.id)
    query = query.where(Dependency.job_id.in_(set().union(*who.values()) - {None}), Job.state != "succeeded")
    rows = session.execute(query).all()
    return {job_id: [needed for waiting, needed in rows if waiting in ids] for job_id, ids in who.items()}


def _running_of(session: Session, users: Collection[str]) -> dict[str, int]:
    """How many jobs of users workers have."""
    query = select(Job.created_by, func.count()).where(Job.created_by.in_(users), Job.worker.is_not(None))
    return {user: count for user, count in session.execute(query.group_by(Job.created_by))}


def _done(job: Job | None) -> str:
    fraction = job.progress.get("fraction") if job is not None else None
    return f" ({fraction:.0%} done)" if fraction else ""


def _starts_in(service: _Service, able: Sequence[str], ahead: Sequence[tuple[str, str | None]]) -> float | None:
    """Seconds until a slot is free once those ahead have had theirs; None where it is not known how long they take."""
    free: list[float] = []
    for name in able:
        job = service.running.get(name)
        left: float | None = 0.0
        if job is not None:
            left = job.progress.get("eta_seconds")
            whole = _duration(service.took, (job.kind, job.dataset_id))
            if left is None and whole is not None:
                left = max(0.0, whole - (service.now - (job.started_at or service.now)) / 1000)
        if left is not None:
            free.append(left)
    if not free:
        return None
    heapq.heapify(free)
    for like in ahead:
        lasts = _duration(service.took, like)
        if lasts is None:
            return None
        heapq.heapreplace(free, free[0] + lasts)
    return round(free[0], 1)


def _duration(took: Mapping[tuple[str | None, ...], float], like: tuple[str, str | None]) -> float | None:
    return took.get(like, took.get(like[:1]))
