"""The job's state machine, and the only writer of a job's state.

    queued ──claim──▶ running ──finish──▶ succeeded
      ▲  │              │ ├──fail──▶ failed        (or back to queued, where trying again can help: see `_lose`)
      │  └──cancel──┐   │ ├──cancel──▶ cancelled
      └──release────┼───┘ └──lease expired──▶ queued, or failed once it has been lost `max_attempts` times
                    ▼
                cancelled                           The last three states never change again.

Every transition is one transaction around one conditional statement. A worker's writes are fenced: they hold only
while its `Lease` (job, attempt) is the current one, else `StaleAttempt` is raised and nothing is written. A parent
(cross-validation) runs without a worker while its children work, then wants a worker itself, to pool their results.
A job on a data set that is still being registered is not wanted by a worker before that is ready; with it ends what
the job that registers it is for: `services.registry` holds a data set's states.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import CursorResult, Select, and_, delete, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, aliased

from bgpanet.catalogue import IMAGENET_FILES
from services import registry
from services.database import Database, now_ms
from services.errors import Conflict, NotFound, StaleAttempt
from services.ids import new_id
from services.tables import TERMINAL, Artifact, Attempt, Checkpoint, Job, LogLine, Metric, Transition

REASONS = (
    "invalid_input",
    "out_of_memory",
    "non_finite_loss",
    "stalled",
    "time_limit",
    "worker_lost",
    "storage",
    "internal",
)
TRIED_AGAIN = ("worker_lost", "storage")
MAX_ATTEMPTS = 3
KEPT_CHECKPOINTS = 2  # of a job that has not ended
RETRY_DELAYS_MS = (1_000, 10_000, 60_000)  # before the second, third, … try after a failure; the last one repeats


@dataclass(frozen=True)
class NewJob:
    """What `submit` inserts. `spec` is validated and complete; children share their parent's data set and owner.

    weights: the file of ImageNet weights without which a worker could not start it; None: it needs none.
    """

    kind: str
    name: str
    spec: Mapping[str, Any]
    dataset_id: str
    created_by: str
    priority: int = 0
    resource_class: str = "any"
    weights: str | None = None
    idempotency_key: str | None = None
    children: Sequence["NewJob"] = ()
    registers: str | None = None  # the name of the data set `dataset_id`, whose row is made with the job


@dataclass(frozen=True)
class StoredFile:
    """A file in the artifact store."""

    key: str
    sha256: str
    size: int

    def as_json(self) -> dict[str, Any]:
        """The form in which tables keep it."""
        return {"key": self.key, "sha256": self.sha256, "size": self.size}


@dataclass(frozen=True)
class NewArtifact:
    """A file of a finished job's result, already stored."""

    name: str
    media_type: str
    file: StoredFile


@dataclass(frozen=True)
class Lease:
    """A worker's right to write for one attempt of a job."""

    job_id: str
    attempt: int


@dataclass(frozen=True)
class Claim:
    """What a worker needs to know of the job that it got. images_at_once: held to so many; None: as the spec says."""

    lease: Lease
    kind: str
    name: str
    spec: dict[str, Any]
    images_at_once: int | None
    dataset_id: str
    checkpoint: dict[str, StoredFile] | None
    children: tuple[str, ...]


@dataclass(frozen=True)
class Orders:
    """What a worker is told whenever it writes."""

    cancel: bool


@dataclass
class Batch:
    """What a child said since the last write."""

    progress: dict[str, Any] | None = None
    metrics: list[dict[str, Any]] = field(default_factory=list)  # step, epoch, name, value
    logs: list[tuple[str, str]] = field(default_factory=list)  # level, message


# ── Submitting ────────────────────────────────────────────────────────────────────────────────────────────────────


def submit(database: Database, new: NewJob) -> tuple[str, bool]:
    """Inserts a job with its children, `queued`. Returns its id, and whether it is new.

    The same idempotency key of the same owner gives the job that it gave before.

    Raises:
        Conflict: the key was used for another request, or the data set can't be used any more.
    """
    try:
        with database.write() as session:
            if (known := _by_key(session, new)) is not None:
                return known, False
            return _insert(session, new, None, None, _is_ready(session, new)), True
    except IntegrityError:
        # Another request with the same key committed between our look and our insert.
        with database.write() as session:
            if (known := _by_key(session, new)) is not None:
                return known, False
        raise


def _by_key(session: Session, new: NewJob) -> str | None:
    if new.idempotency_key is None:
        return None
    job = session.scalar(
        select(Job).where(Job.created_by == new.created_by, Job.idempotency_key == new.idempotency_key)
    )
    if job is None:
        return None
    asked, before = (new.kind, new.dataset_id, dict(new.spec)), (job.kind, job.dataset_id, job.spec)
    if new.registers is not None:  # under a new id each time
        asked, before = (new.kind, new.name, dict(new.spec)), (job.kind, job.name, job.spec)
    if asked != before:
        raise Conflict(f"the idempotency key was used for job {job.id}, which asks for something else; take a new key")
    return job.id


def _is_ready(session: Session, new: NewJob) -> bool:
    """Whether the job can begin. Its data set's row is held, so that nothing happens to it before the job is there."""
    if new.registers is not None:
        return True
    state = registry.hold(session, new.dataset_id)
    if state not in ("ready", "registering"):
        raise Conflict(f"data set {new.dataset_id} is {state}; name another")
    return state == "ready"


def _insert(session: Session, new: NewJob, parent_id: str | None, position: int | None, ready: bool) -> str:
    job_id = new_id()
    if new.registers is not None:
        registry.begin(session, new.dataset_id, new.registers, new.spec["source"]["format"], new.created_by, job_id)
    session.execute(
        insert(Job).values(
            id=job_id,
            kind=new.kind,
            name=new.name,
            state="queued",
            dataset_id=new.dataset_id,
            spec=dict(new.spec),
            resource_class=new.resource_class,
            weights=new.weights,
            priority=new.priority,
            parent_id=parent_id,
            position=position,
            attempt=0,
            losses=0,
            max_attempts=MAX_ATTEMPTS,
            wants_worker=ready and not new.children,
            not_before=0,
            cancel_requested=False,
            progress={},
            summary={},
            created_by=new.created_by,
            idempotency_key=new.idempotency_key,
            created_at=now_ms(),
        )
    )
    _note(session, job_id, 0, "queued", "submitted")
    for number, child in enumerate(new.children):
        _insert(session, child, job_id, number, ready)
    return job_id


# ── Claiming ──────────────────────────────────────────────────────────────────────────────────────────────────────


def waiting(resource_classes: Sequence[str], weights: Collection[str] = IMAGENET_FILES) -> Select[str]:
    """The ids of the jobs that a worker may claim, the best first: priority, fair share among users, then age.

    weights: the files of ImageNet weights that the worker can have.
    """
    other = aliased(Job)
    running_of_owner = (
        select(func.count())
        .select_from(other)
        .where(other.created_by == Job.created_by, other.state == "running", other.worker.is_not(None))
        .scalar_subquery()
    )
    return (
        select(Job.id)
        .where(Job.wants_worker, Job.resource_class.in_(resource_classes), Job.not_before <= now_ms())
        .where(Job.weights.is_(None) | Job.weights.in_(weights))
        .order_by(Job.priority.desc(), running_of_owner, Job.created_at, Job.id)
    )


def claim(
    database: Database,
    worker: str,
    resource_classes: Sequence[str],
    lease_seconds: float,
    weights: Collection[str] = IMAGENET_FILES,
) -> Claim | None:
    """Takes the best waiting job for a worker, and leases it; None where there is none."""
    best = waiting(resource_classes, weights).limit(1).with_for_update(skip_locked=True, of=Job).scalar_subquery()
    with database.write() as session:
        job = session.scalar(
            update(Job)
            .where(Job.id == best, Job.wants_worker)
            .values(
                state="running",
                wants_worker=False,
                attempt=Job.attempt + 1,
                worker=worker,
                lease_expires_at=now_ms() + _ms(lease_seconds),
                started_at=func.coalesce(Job.started_at, now_ms()),
            )
            .returning(Job)
            .execution_options(synchronize_session=False)
        )
        if job is None:
            return None
        attempt = {"job_id": job.id, "number": job.attempt, "worker": worker, "images_at_once": job.images_at_once}
        session.execute(insert(Attempt).values(**attempt, started_at=now_ms()))
        _note(session, job.id, job.attempt, "running", f"claimed by {worker}")
        if job.parent_id is not None:
            _start_parent(session, job.parent_id)
        newest = session.scalar(
            select(Checkpoint).where(Checkpoint.job_id == job.id).order_by(Checkpoint.step.desc()).limit(1)
        )
        children = session.scalars(select(Job.id).where(Job.parent_id == job.id).order_by(Job.position))
        return Claim(
            lease=Lease(job.id, job.attempt),
            kind=job.kind,
            name=job.name,
            spec=job.spec,
            images_at_once=job.images_at_once,
            dataset_id=job.dataset_id,
            checkpoint=None if newest is None else {n: StoredFile(**f) for n, f in newest.files.items()},
            children=tuple(children),
        )


def _start_parent(session: Session, parent_id: str) -> None:
    started = changed(
        session.execute(
            update(Job)
            .where(Job.id == parent_id, Job.state == "queued")
            .values(state="running", started_at=func.coalesce(Job.started_at, now_ms()))
        )
    )
    if started:
        _note(session, parent_id, 0, "running", "its first child was claimed")


# ── Writing under a lease ─────────────────────────────────────────────────────────────────────────────────────────


def renew(database: Database, lease: Lease, lease_seconds: float, batch: Batch | None = None) -> Orders:
    """Renews the lease and writes what the child said since. Returns what the worker has to do.

    Raises:
        StaleAttempt: the lease was lost; nothing was written.
    """
    batch = batch or Batch()
    changes: dict[str, Any] = {"lease_expires_at": now_ms() + _ms(lease_seconds)}
    if batch.progress is not None:
        changes["progress"] = batch.progress
    with database.write() as session:
        _fence(session, lease, changes)
        cancel = session.scalar(select(Job.cancel_requested).where(Job.id == lease.job_id))
        if batch.metrics:
            _write_metrics(session, [{"job_id": lease.job_id, **metric} for metric in batch.metrics])
        if batch.logs:
            at = session.scalar(select(now_ms()))
            lines = [
                {"job_id": lease.job_id, "attempt": lease.attempt, "at": at, "level": level, "message": message}
                for level, message in batch.logs
            ]
            session.execute(insert(LogLine), lines)
        return Orders(cancel=bool(cancel))


def resumed(database: Database, lease: Lease, step: int) -> None:
    """The attempt starts from the state after `step` (0: the beginning): figures of later steps are taken back.

    Raises:
        StaleAttempt: the lease was lost.
    """
    with database.write() as session:
        _fence(session, lease, {})
        session.execute(delete(Metric).where(Metric.job_id == lease.job_id, Metric.step > step))
        session.execute(
            update(Attempt)
            .where(Attempt.job_id == lease.job_id, Attempt.number == lease.attempt)
            .values(resumed_from_step=step)
        )


def record_checkpoint(
    database: Database, lease: Lease, step: int, epoch: int, files: Mapping[str, StoredFile]
) -> list[str]:
    """Makes a checkpoint that is already stored the one from which a later attempt goes on.

    The one before it is kept too, in case this one is damaged; older ones are forgotten. Returns the keys of files
    that nothing names any more.

    Raises:
        StaleAttempt: the lease was lost.
    """
    values = {
        "epoch": epoch,
        "attempt": lease.attempt,
        "files": {name: file.as_json() for name, file in files.items()},
        "created_at": now_ms(),
    }
    with database.write() as session:
        _fence(session, lease, {})
        newest = select(Checkpoint).where(Checkpoint.job_id == lease.job_id).order_by(Checkpoint.step.desc())
        known = session.scalars(newest).all()
        before = [checkpoint for checkpoint in known if checkpoint.step < step][: KEPT_CHECKPOINTS - 1]
        forgotten = [checkpoint for checkpoint in known if checkpoint not in before]
        steps = [checkpoint.step for checkpoint in forgotten]
        session.execute(delete(Checkpoint).where(Checkpoint.job_id == lease.job_id, Checkpoint.step.in_(steps)))
        session.execute(insert(Checkpoint).values(job_id=lease.job_id, step=step, **values))
        named = {file.key for file in files.values()}.union(*map(_keys, before))
        return sorted(set().union(*map(_keys, forgotten)) - named)


def finish(database: Database, lease: Lease, summary: Mapping[str, Any], artifacts: Sequence[NewArtifact]) -> set[str]:
    """Closes the job as `succeeded` with its figures and files, all visible at once; its checkpoints are forgotten.

    Returns the keys of the files that are named from now on. Repeating it after a commit whose acknowledgement was
    lost changes nothing.

    Raises:
        StaleAttempt: the lease was lost.
    """
    with database.write() as session:
        if _ended_as(session, lease, "succeeded"):
            return _artifact_keys(session, lease.job_id)
        _end(session, lease, state="succeeded", outcome="succeeded", summary=dict(summary))
        for artifact in artifacts:
            session.execute(
                insert(Artifact).values(
                    job_id=lease.job_id,
                    name=artifact.name,
                    attempt=lease.attempt,
                    media_type=artifact.media_type,
                    created_at=now_ms(),
                    **artifact.file.as_json(),
                )
            )
        _settle(session, lease.job_id)
        session.execute(delete(Checkpoint).where(Checkpoint.job_id == lease.job_id))
        return _artifact_keys(session, lease.job_id)


def fail(
    database: Database,
    lease: Lease,
    reason: str,
    error: str,
    fewer: int | None = None,
    findings: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Ends the attempt with a reason: tried again where that can help, else the job is `failed`.

    fewer: as many images at once as a run that was out of memory can be tried with; None: it can't do with fewer.
    findings: they go to the data set that the job was to register.

    Raises:
        StaleAttempt: the lease was lost.
    """
    reason = reason if reason in REASONS else "internal"
    with database.write() as session:
        if _ended_as(session, lease, "failed"):
            return
        _lose(session, lease, reason, error, fewer, findings)


def release(database: Database, lease: Lease, why: str) -> None:
    """Gives a job back unfinished and unharmed (a worker that was told to leave): `queued` again at once.

    Raises:
        StaleAttempt: the lease was lost.
    """
    with database.write() as session:
        if _is_cancelled(session, lease):
            _end(session, lease, state="cancelled", outcome="cancelled", detail="cancelled on request")
            _settle(session, lease.job_id)
        else:
            _end(session, lease, state="queued", outcome="released", detail=why)


def confirm_cancel(database: Database, lease: Lease) -> None:
    """Closes the job as `cancelled`, its child process being gone.

    Raises:
        StaleAttempt: the lease was lost.
    """
    with database.write() as session:
        if _ended_as(session, lease, "cancelled"):
            return
        _end(session, lease, state="cancelled", outcome="cancelled", detail="cancelled on request")
        _settle(session, lease.job_id)


# ── Without a lease ───────────────────────────────────────────────────────────────────────────────────────────────


def cancel(database: Database, job_id: str) -> str:
    """Cancels a job and its children: those that wait at once, those that run as soon as their worker hears of it.

    Returns the job's state after that. A job that has ended stays as it is.
    """
    with database.write() as session:
        # Children before their parent, as everywhere: two transactions never wait for each other.
        children = select(Job.id).where(Job.parent_id == job_id).order_by(Job.id).with_for_update()
        family = [*session.scalars(children), job_id]
        idle = session.scalars(
            update(Job)
            .where(Job.id.in_(family), Job.state.not_in(TERMINAL), Job.worker.is_(None))
            .values(state="cancelled", wants_worker=False, finished_at=now_ms())
            .returning(Job.id)
            .execution_options(synchronize_session=False)
        ).all()
        for cancelled in idle:
            _note(session, cancelled, 0, "cancelled", "cancelled before a worker had it")
        session.execute(update(Job).where(Job.id.in_(family), Job.state == "running").values(cancel_requested=True))
        if job_id in idle:
            _settle(session, job_id)
        state = session.scalar(select(Job.state).where(Job.id == job_id))
    if state is None:
        raise NotFound(f"there is no job {job_id}")
    return state


def expire_leases(database: Database) -> list[str]:
    """Takes every job back whose worker has been silent past its lease. Returns their ids."""
    silent = (
        select(Job.id, Job.attempt, Job.worker)
        .where(Job.state == "running", Job.worker.is_not(None), Job.lease_expires_at < now_ms())
        .with_for_update(skip_locked=True)
    )
    expired = []
    with database.write() as session:
        for job_id, attempt, worker in session.execute(silent).all():
            _lose(session, Lease(job_id, attempt), "worker_lost", f"worker {worker} went silent")
            expired.append(job_id)
    return expired


def forget(session: Session, job_ids: Sequence[str]) -> None:
    """Deletes jobs that have ended, with all that was written about them."""
    for table in (Attempt, Transition, Metric, LogLine, Checkpoint, Artifact):
        session.execute(delete(table).where(table.job_id.in_(job_ids)))
    session.execute(delete(Job).where(Job.id.in_(job_ids), Job.state.in_(TERMINAL)))


def count_waiting(database: Database, resource_class: str) -> int:
    """How many jobs of a resource class a worker could claim now."""
    with database.read() as session:
        return session.scalar(select(func.count()).select_from(waiting([resource_class]).subquery())) or 0


# ── Pieces ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _keys(checkpoint: Checkpoint) -> set[str]:
    return {str(file["key"]) for file in checkpoint.files.values()}


def _artifact_keys(session: Session, job_id: str) -> set[str]:
    return set(session.scalars(select(Artifact.key).where(Artifact.job_id == job_id)))


def _held_by(lease: Lease) -> Any:
    return and_(Job.id == lease.job_id, Job.attempt == lease.attempt, Job.state == "running", Job.worker.is_not(None))


def _fence(session: Session, lease: Lease, changes: Mapping[str, Any]) -> None:
    """Locks the job's row and applies `changes`, if the lease still holds."""
    statement = update(Job).where(_held_by(lease)).values(changes or {"attempt": Job.attempt})
    if not changed(session.execute(statement)):
        raise StaleAttempt(f"attempt {lease.attempt} of job {lease.job_id} no longer holds its lease")


def _end(session: Session, lease: Lease, *, state: str, outcome: str, detail: str = "", **changes: Any) -> None:
    """Ends the attempt and moves the job to `state`."""
    if state in TERMINAL:
        changes["finished_at"] = now_ms()
    else:
        changes["wants_worker"] = True
    _fence(session, lease, {"state": state, "worker": None, "lease_expires_at": None, **changes})
    session.execute(
        update(Attempt)
        .where(Attempt.job_id == lease.job_id, Attempt.number == lease.attempt)
        .values(ended_at=now_ms(), outcome=outcome)
    )
    _note(session, lease.job_id, lease.attempt, state, detail or outcome)


def _lose(
    session: Session,
    lease: Lease,
    reason: str,
    error: str,
    fewer: int | None = None,
    findings: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Ends an attempt that failed: cancelled if that was asked for, tried again if that can help, else failed.

    What is no fault of the job's is tried again until it was lost `max_attempts` times, later each time; want of memory
    once, with fewer images at once, to which the job is held from then on.
    """
    losses, most, cancelled, limit = session.execute(
        select(Job.losses, Job.max_attempts, Job.cancel_requested, Job.images_at_once).where(Job.id == lease.job_id)
    ).one()
    if cancelled:
        _end(session, lease, state="cancelled", outcome="cancelled", detail=f"cancelled on request ({error})")
    elif reason in TRIED_AGAIN and losses + 1 < most:
        delay = RETRY_DELAYS_MS[min(losses, len(RETRY_DELAYS_MS) - 1)]
        changes = {"losses": losses + 1, "not_before": now_ms() + delay}
        _end(session, lease, state="queued", outcome=reason, detail=error, **changes)
        return
    elif reason == "out_of_memory" and fewer is not None and limit is None:
        detail = f"{error}; tried once more with {fewer} images at once"
        _end(session, lease, state="queued", outcome=reason, detail=detail, images_at_once=fewer)
        return
    else:
        changes = {"losses": losses + 1, "reason": reason, "error": error}
        _end(session, lease, state="failed", outcome=reason, detail=error, **changes)
    _settle(session, lease.job_id, findings)


def _ended_as(session: Session, lease: Lease, state: str) -> bool:
    query = select(Job.id).where(Job.id == lease.job_id, Job.attempt == lease.attempt, Job.state == state)
    return session.scalar(query) is not None


def _is_cancelled(session: Session, lease: Lease) -> bool:
    return bool(session.scalar(select(Job.cancel_requested).where(Job.id == lease.job_id)))


def _settle(session: Session, job_id: str, findings: Sequence[Mapping[str, Any]] = ()) -> None:
    """What follows from a job's end: its parent moves on, and a data set that it registered is ready or refused."""
    job = session.execute(
        select(Job.kind, Job.state, Job.dataset_id, Job.summary, Job.error).where(Job.id == job_id)
    ).one()
    if job.kind != "register":
        _close_parent(session, job_id)
    elif job.state == "succeeded":
        stored = session.scalars(select(Artifact).where(Artifact.job_id == job_id)).all()
        files = {file.name: {"key": file.key, "sha256": file.sha256, "size": file.size} for file in stored}
        accepted = registry.accept(session, job.dataset_id, job.summary, files)
        if accepted != job.dataset_id:
            session.execute(delete(Artifact).where(Artifact.job_id == job_id))
        _wake(session, job.dataset_id, accepted)
    else:
        why = job.error or "registering it was cancelled"
        registry.refuse(session, job.dataset_id, why, findings)
        _fail_waiting(session, job.dataset_id, f"its data set was refused: {why}")


def _wake(session: Session, dataset_id: str, accepted: str) -> None:
    """Lets the jobs begin that waited for a data set; on the one that has its content, where that was there already."""
    waiting_jobs = _waiting_for(session, dataset_id)
    of_dataset = and_(Job.dataset_id == dataset_id, Job.kind != "register")
    session.execute(update(Job).where(of_dataset).values(dataset_id=accepted))
    session.execute(update(Job).where(Job.id.in_(waiting_jobs)).values(wants_worker=True))


def _fail_waiting(session: Session, dataset_id: str, error: str) -> None:
    """Closes the jobs that waited for a data set that never comes, and their parents."""
    for job_id in _waiting_for(session, dataset_id):
        values = {"state": "failed", "reason": "invalid_input", "error": error, "finished_at": now_ms()}
        session.execute(update(Job).where(Job.id == job_id).values(**values))
        _note(session, job_id, 0, "failed", error)
        _close_parent(session, job_id)


def _waiting_for(session: Session, dataset_id: str) -> Sequence[str]:
    """Jobs without children that wait for a data set, locked: children before parents, as everywhere."""
    child = aliased(Job)
    has_children = select(child.id).where(child.parent_id == Job.id).exists()
    query = select(Job.id).where(Job.dataset_id == dataset_id, Job.state == "queued", Job.kind != "register")
    query = query.where(~has_children).order_by(Job.parent_id.is_(None), Job.id)
    return session.scalars(query.with_for_update(of=Job)).all()


def _close_parent(session: Session, child_id: str) -> None:
    """Moves on the parent of a job that has just ended, once all its children have.

    The parent's row is locked first: of two children that end at the same time, the second sees the first.
    """
    parent_id = session.scalar(select(Job.parent_id).where(Job.id == child_id))
    if parent_id is None:
        return
    session.execute(select(Job.id).where(Job.id == parent_id).with_for_update())
    children = session.execute(
        select(Job.state, Job.reason, Job.position, Job.error).where(Job.parent_id == parent_id).order_by(Job.position)
    ).all()
    if any(child.state not in TERMINAL for child in children):
        return
    open_parent = and_(Job.id == parent_id, Job.state.not_in(TERMINAL), Job.worker.is_(None))
    failed = next((child for child in children if child.state == "failed"), None)
    parent = session.execute(select(Job.kind, Job.cancel_requested).where(Job.id == parent_id)).one()
    # A study tells what it lacks; a cross-validation without a fold would be a figure of something else.
    enough = any if parent.kind == "study" and not parent.cancel_requested else all
    if enough(child.state == "succeeded" for child in children):
        session.execute(update(Job).where(open_parent).values(wants_worker=True))
        return
    if failed is not None:
        error = f"child {failed.position} failed: {failed.error}"
        values = {"state": "failed", "reason": failed.reason, "error": error}
    else:
        values = {"state": "cancelled"}
    closed = changed(session.execute(update(Job).where(open_parent).values(**values, finished_at=now_ms())))
    if closed:
        _note(session, parent_id, 0, values["state"] or "", values.get("error") or "its children were cancelled")


def _write_metrics(session: Session, rows: list[dict[str, Any]]) -> None:
    """A figure that is said again (the end of an epoch, after a resume just before it) replaces itself."""
    dialect_insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    statement = dialect_insert(Metric)
    new = {"value": statement.excluded.value, "epoch": statement.excluded.epoch}
    session.execute(statement.on_conflict_do_update(index_elements=["job_id", "name", "step"], set_=new), rows)


def _note(session: Session, job_id: str, attempt: int, state: str, detail: str) -> None:
    session.execute(insert(Transition).values(job_id=job_id, at=now_ms(), attempt=attempt, state=state, detail=detail))


def changed(result: Any) -> bool:
    """Whether a statement that was to change one row did."""
    return isinstance(result, CursorResult) and result.rowcount == 1


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
