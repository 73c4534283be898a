"""Which waiting job is the next: the order of work is one query, which claims, wake-ups and forecasts share."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import inf

from sqlalchemy import ColumnElement, ScalarSelect, Select, and_, exists, func, or_, select
from sqlalchemy.orm import aliased

from bgpanet.catalogue import IMAGENET_FILES
from services.database import now_ms
from services.tables import Job, JobLabel


@dataclass(frozen=True)
class Offer:
    """What a worker slot has to give.

    resource_classes: whose jobs it takes; weights: the files of ImageNet weights that it can have; labels: what jobs
    may ask for by name; memory_gb: of its device, 10^9 bytes; version: the worker's, for the record;
    without: jobs that it has found not to understand.
    """

    resource_classes: Sequence[str]
    weights: Collection[str] = IMAGENET_FILES
    labels: frozenset[str] = frozenset()
    memory_gb: float = inf
    version: str | None = None
    without: frozenset[str] = frozenset()


def servable(offer: Offer) -> ColumnElement[bool]:
    """Whether a job asks for nothing that the offer lacks."""
    missing = exists().where(JobLabel.job_id == Job.id, JobLabel.label.not_in(offer.labels))
    enough = Job.memory_gb.is_(None) if offer.memory_gb <= 0 else or_(Job.memory_gb.is_(None), _fits(offer.memory_gb))
    return (
        Job.resource_class.in_(offer.resource_classes)
        & Job.id.not_in(offer.without)
        & or_(Job.weights.is_(None), Job.weights.in_(offer.weights))
        & ~missing
        & enough
    )


def _fits(memory_gb: float) -> ColumnElement[bool]:
    return Job.memory_gb.is_not(None) if memory_gb == inf else Job.memory_gb <= memory_gb


def waiting(offer: Offer, most_running: int | None = None) -> Select[str]:
    """The ids of the jobs that a worker may claim, the best first: priority, fair share among users, then age.

    most_running: jobs of users of whom so many run already have to wait; None: no such limit.
    """
    query = in_order(servable(offer)).where(Job.not_before <= now_ms())
    return query if most_running is None else query.where(_running_of_owner() < most_running)


def in_order(which: ColumnElement[bool]) -> Select[str]:
    """The ids of those jobs that want a worker, the best first."""
    waiting_jobs = select(Job.id).where(Job.wants_worker, which)
    return waiting_jobs.order_by(Job.priority.desc(), _running_of_owner(), Job.created_at, Job.id)


def _running_of_owner() -> ScalarSelect[int]:
    """How many jobs of a job's owner workers have."""
    other = aliased(Job)
    running = and_(other.created_by == Job.created_by, other.state == "running", other.worker.is_not(None))
    return select(func.count()).select_from(other).where(running).scalar_subquery()
