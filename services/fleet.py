"""Workers as the control plane knows them: each slot tells every few seconds that it is there."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import inf
from typing import Any

from sqlalchemy import and_, case, delete, false, insert, null, select, update

from bgpanet.catalogue import IMAGENET_FILES
from services.database import Also, Database, nothing, now_ms
from services.errors import Conflict, NotFound
from services.fleet_use import Use
from services.order import Offer
from services.tables import Worker, WorkerUse

LOST_MS = 60_000  # of silence, after which a slot counts as lost


@dataclass(frozen=True)
class Weights:
    """Which of torchvision's ImageNet weights a slot can have.

    folder: where torch looks for their files; files: those that lie there; reachable: whether the host that they are
    downloaded from answers, None: not known.
    """

    folder: str = ""
    files: Sequence[str] = ()
    reachable: bool | None = None

    @property
    def obtainable(self) -> Collection[str]:
        """The files that a job of this slot could load; all, unless it is known to be offline."""
        return self.files if self.reachable is False else IMAGENET_FILES

    def __str__(self) -> str:
        """`reachable`, `2 files`, `none`; a dash where it is not known."""
        if self.reachable is None:
            return "\N{EN DASH}"
        files = f"{len(self.files)} file{'s' if len(self.files) > 1 else ''}" if self.files else "none"
        return "reachable" if self.reachable else files


@dataclass(frozen=True)
class Member:
    """One worker slot.

    device: a name for people; resource_classes: those whose jobs it takes; labels: what jobs may ask for by name;
    memory_gb: of its device, 10^9 bytes, None: not known.
    """

    name: str
    host: str
    pid: int
    version: str
    device: str
    resource_classes: Sequence[str]
    labels: Sequence[str] = ()
    memory_gb: float | None = None

    def offer(self, weights: Weights) -> Offer:
        """What the slot has to give while it can have these weights."""
        return _offer(self.resource_classes, weights, self.labels, self.memory_gb, self.version)


@dataclass(frozen=True)
class Condition:
    """Whether a slot takes jobs. state: `ready`, `checking` itself, `unfit` or `draining`; why: it does not."""

    state: str = "ready"
    why: str | None = None


READY = Condition()


def beat(
    database: Database,
    member: Member,
    job_id: str | None,
    figures: Mapping[str, Any],
    weights: Weights,
    condition: Condition = READY,
    use: Use | None = None,
    is_first: bool = False,
) -> bool:
    """Registers the slot, or tells that it is still there: with its present job, figures of host and device, weights
    within reach, and whether it takes jobs. use: how busy it was since this was told last. is_first: of its process.

    Returns whether its worker was asked to leave.
    """
    lists: dict[str, Any] = {"resource_classes": list(member.resource_classes), "labels": list(member.labels)}
    present: dict[str, Any] = {
        "job_id": job_id,
        "figures": dict(figures),
        "weights": asdict(weights),
        "seen_at": now_ms(),
    }
    present |= {**asdict(member), **lists, **asdict(condition)}
    # One that was killed and started again under its name may offer something else. In a container each has the number
    # of the one before: whoever begins is no other's successor in what that was told.
    is_same = false() if is_first else and_(Worker.host == member.host, Worker.pid == member.pid)
    began = case((is_same, Worker.started_at), else_=now_ms())
    told = case((is_same, Worker.told_to_leave_by), else_=null())  # that was said to the one before
    known = update(Worker).where(Worker.name == member.name)
    known = known.values(**present, started_at=began, told_to_leave_by=told)
    with database.write() as session:
        row = session.execute(known.returning(Worker.told_to_leave_by)).first()
        if row is None:
            session.execute(insert(Worker).values(**present, started_at=now_ms()))
        if use is not None:
            session.execute(insert(WorkerUse).values(worker=member.name, at=now_ms(), **asdict(use)))
    return row is not None and row[0] is not None


def offer(row: Worker) -> Offer:
    """What a slot has to give, as it told it last."""
    return _offer(row.resource_classes, Weights(**row.weights), row.labels, row.memory_gb, row.version)


def _offer(
    classes: Sequence[str], weights: Weights, labels: Sequence[str], memory_gb: float | None, version: str
) -> Offer:
    can_have, memory = frozenset(weights.obtainable), inf if memory_gb is None else memory_gb
    return Offer(tuple(classes), can_have, frozenset(labels), memory, version)


def live(database: Database, resource_class: str) -> list[Worker]:
    """The rows of the slots that take jobs of this class and were heard of lately, by name."""
    with database.read() as session:
        seen = select(Worker).where(Worker.seen_at >= now_ms() - LOST_MS).order_by(Worker.name)
        return [row for row in session.scalars(seen) if resource_class in row.resource_classes]


def worker_of(slot: str) -> str:
    """The name of the worker that a slot belongs to."""
    return slot.rpartition("/")[0] or slot


def drain(database: Database, name: str, by: str, also: Also = nothing) -> str:
    """Asks a worker to leave, by its name or a slot's: it hears of it with its next heartbeat, and then does what it
    does on SIGTERM. Asked again, nothing changes. Returns its name.

    Raises:
        NotFound: there is no such worker.
        Conflict: it is lost, and hears nothing.
    """
    with database.write() as session:
        now = session.scalar(select(now_ms())) or 0
        rows = session.scalars(select(Worker)).all()
        worker = next((worker_of(row.name) for row in rows if name in (row.name, worker_of(row.name))), None)
        if worker is None:
            raise NotFound(f"there is no worker {name!r}; `bgpanet workers` lists them")
        slots = [row for row in rows if worker_of(row.name) == worker]
        if all(row.seen_at < now - LOST_MS for row in slots):
            raise Conflict(f"worker {worker} is lost, and hears nothing; what it had is taken back by itself")
        names = [row.name for row in slots if row.told_to_leave_by is None]
        if names:
            session.execute(update(Worker).where(Worker.name.in_(names)).values(told_to_leave_by=by))
            also(session, worker)
    return worker


def leave(database: Database, name: str) -> None:
    """Forgets a slot that has stopped in good order."""
    with database.write() as session:
        session.execute(delete(Worker).where(Worker.name == name))


def forget_lost(database: Database, after_seconds: float) -> None:
    """Forgets the slots that have not been heard of for so long."""
    with database.write() as session:
        session.execute(delete(Worker).where(Worker.seen_at < now_ms() - round(after_seconds * 1000)))
