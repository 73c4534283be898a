"""What a waiting job waits for, its place in the queue, and about when it will start.

The estimate lets the jobs before it run in their order on the slots that could take it, each for as long as its like
took before: the median of those that succeeded last, of its kind on its data set, else of its kind. A slot is free when
its job's own estimate ends, else when such a median does; where neither is known it counts as never free. It knows
nothing of jobs that will be submitted later with a higher priority or that wait for something else now, nor of shares
among users that change meanwhile, nor of other slots that would take some of those before it.
"""

import heapq
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.orm import Session, aliased

from services import fleet
from services.database import Database, now_ms
from services.order import Offer, in_order, servable
from services.tables import Dataset, Dependency, Job, JobLabel, Worker

WAITING = ("queued", "paused")  # states
FARTHEST = 10_000  # jobs that are looked at; a place behind them is told as the next one, without an estimate
RECENT = 300  # finished jobs that tell how long their like takes


_RUNNING = select(Job.worker, Job.kind, Job.dataset_id, Job.progress, Job.started_at)


@dataclass(frozen=True)
class Queue:
    """position: from 1, None: it is not in the queue yet. starts_in_seconds: None: not known."""

    position: int | None
    starts_in_seconds: float | None
    waits_for: list[str]


def look_ahead(database: Database, job_id: str, most_running: int | None = None) -> dict[str, Any] | None:
    """A job's `Queue` as plain data; None where it does not wait. That of a parent is its first waiting child's."""
    with database.read() as session:
        job = session.get(Job, job_id)
        if job is None or job.state not in WAITING:
            return None
        child = select(Job).where(Job.parent_id == job_id, Job.state == job.state, Job.superseded_by.is_(None))
        first = session.scalar(child.order_by(Job.position).limit(1)) or job
        seen = _seen(session)
        workers = {row.name: fleet.offer(row) for row in seen if row.state == "ready"}
        # Of slots that offer the same, which is most, one is asked about.
        serves = {offer: _serves(session, offer, first.id) for offer in set(workers.values())}
        able = [name for name, offer in workers.items() if serves[offer]]
        label = select(JobLabel.label).where(JobLabel.job_id == first.id).order_by(JobLabel.label)
        labels = session.scalars(label).all()
        reasons = _reasons(session, first, most_running)
        if not able:
            reasons.append(_nobody(seen, first, labels))
        if not first.wants_worker:
            return asdict(Queue(None, None, reasons))
        offers = list(dict.fromkeys(workers[name] for name in able))
        offers = offers or [Offer([first.resource_class], labels=frozenset(labels))]
        ahead = _ahead(session, offers, first)
        starts_in = _starts_in(session, able, ahead) if not reasons and len(ahead) < FARTHEST else None
        return asdict(Queue(len(ahead) + 1, starts_in, reasons))


def _seen(session: Session) -> Sequence[Worker]:
    return session.scalars(select(Worker).where(Worker.seen_at >= now_ms() - fleet.LOST_MS).order_by(Worker.name)).all()


def _serves(session: Session, offer: Offer, job_id: str) -> bool:
    return session.scalar(select(Job.id).where(Job.id == job_id, servable(offer))) is not None


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


def _reasons(session: Session, job: Job, most_running: int | None) -> list[str]:
    """What stands in the way besides other jobs and a want of workers."""
    reasons = ["it is paused"] if job.state == "paused" else []
    dataset = session.get(Dataset, job.dataset_id) if job.dataset_id else None
    if dataset is not None and dataset.state == "registering" and job.kind != "register":
        registering = session.get(Job, dataset.job_id) if dataset.job_id else None
        reasons.append(f"data set {dataset.name} is being registered{_done(registering)}")
    needed = aliased(Job)
    query = select(needed).join(Dependency, Dependency.needs == needed.id)
    query = query.where(Dependency.job_id.in_([job.id, job.parent_id or ""]), needed.state != "succeeded")
    reasons += [f"job {other.id} ({other.name}) is {other.state}{_done(other)}" for other in session.scalars(query)]
    wait = job.not_before - (session.scalar(select(now_ms())) or 0)
    if wait > 0:
        reasons.append(f"an attempt was lost; the next one begins in {wait / 1000:.0f} s")
    if most_running is not None:
        running = select(Job.id).where(Job.created_by == job.created_by, Job.worker.is_not(None))
        if len(session.scalars(running).all()) >= most_running:
            reasons.append(f"{job.created_by} has {most_running} jobs running, which is the limit")
    return reasons


def _done(job: Job | None) -> str:
    fraction = job.progress.get("fraction") if job is not None else None
    return f" ({fraction:.0%} done)" if fraction else ""


def _ahead(session: Session, offers: Sequence[Offer], job: Job) -> list[tuple[str, str | None]]:
    """(kind, data set) of the jobs before it, in order."""
    before: list[tuple[str, str | None]] = []
    ordered = in_order(or_(*[servable(offer) for offer in offers])).limit(FARTHEST)
    for other in session.execute(ordered.add_columns(Job.kind, Job.dataset_id)):
        if other.id == job.id:
            break
        before.append((other.kind, other.dataset_id))
    return before


def _starts_in(session: Session, able: Sequence[str], ahead: Sequence[tuple[str, str | None]]) -> float | None:
    """Seconds until a slot is free once those ahead have had theirs; None where it is not known how long they take."""
    took = _durations(session)
    running = {job.worker: job for job in session.execute(_RUNNING.where(Job.worker.in_(able)))}
    now = session.scalar(select(now_ms())) or 0
    free: list[float] = []
    for name in able:
        job = running.get(name)
        left: float | None = 0.0
        if job is not None:
            left = job.progress.get("eta_seconds")
            whole = _duration(took, (job.kind, job.dataset_id))
            if left is None and whole is not None:
                left = max(0.0, whole - (now - (job.started_at or now)) / 1000)
        if left is not None:
            free.append(left)
    if not free:
        return None
    heapq.heapify(free)
    for like in ahead:
        lasts = _duration(took, like)
        if lasts is None:
            return None
        heapq.heapreplace(free, free[0] + lasts)
    return round(free[0], 1)


def _durations(session: Session) -> dict[tuple[str | None, ...], list[float]]:
    """Seconds from start to end of the jobs that succeeded last, by kind and data set, and by kind."""
    query = select(Job.kind, Job.dataset_id, Job.started_at, Job.finished_at)
    query = query.where(Job.state == "succeeded", Job.started_at.is_not(None)).order_by(Job.finished_at.desc())
    found: dict[tuple[str | None, ...], list[float]] = {}
    for kind, dataset, started, finished in session.execute(query.limit(RECENT)):
        seconds = ((finished or 0) - (started or 0)) / 1000
        for key in ((kind, dataset), (kind,)):
            found.setdefault(key, []).append(seconds)
    return found


def _duration(took: Mapping[tuple[str | None, ...], list[float]], like: tuple[str, str | None]) -> float | None:
    known = took.get(like) or took.get(like[:1])
    return statistics.median(known) if known else None
