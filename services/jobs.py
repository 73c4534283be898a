"""The job's state machine, and the only writer of a job's state.

              ┌──resume── paused ◀─pause (at once, or when a running child has written its checkpoint)
              ▼             │
    submit─▶ queued ──claim─┼─▶ running ──finish──▶ succeeded
              ▲  │          │     │ ├────fail────▶ failed     (or back to queued, where trying again can help: `_lose`)
              │  └──cancel──┤     │ ├───cancel───▶ cancelled
              └──release────┼─────┘ └─lease expired─▶ queued, or failed once it was lost `max_attempts` times in a row
                            ▼
                        cancelled                   The last three states never change again: `retry` makes a new job
                                                    that takes over the checkpoints and the finished children.

Every transition is one transaction around one conditional statement. A worker's writes are fenced: they hold only
while its `Lease` (job, attempt) is the current one, else `StaleAttempt` is raised and nothing is written. Which of the
waiting jobs is claimed is said by `services.order`; whether a job waits for a worker at all, by `wants_worker`:

- a job without children wants one from when its data set is ready and all jobs that it is to follow have succeeded;
- a parent (cross-validation, study, batch inference in shards) runs without a worker while its children work, and
  wants one once they have ended, to pool their results.

What ends a job may end or wake others, in the same transaction: its parent, the jobs that follow it, and, of a job
that registers a data set, the jobs that wait for that (`services.registry` holds a data set's states). Rows are locked
children before parents, jobs before those that follow them.
"""

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from sqlalchemy import (
    ColumnElement,
    CursorResult,
    and_,
    case,
    delete,
    exists,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, aliased

from services import registry
from services.claims import (
    NO_LIMITS,
    Batch,
    Claim,
    Lease,
    Limits,
    NewArtifact,
    NewJob,
    Orders,
    Reason,
    StoredFile,
)
from services.database import Database, now_ms
from services.errors import Busy, Conflict, NotFound, StaleAttempt
from services.ids import new_id
from services.order import Offer, waiting
from services.tables import (
    TERMINAL,
    Artifact,
    Attempt,
    Checkpoint,
    Dataset,
    Dependency,
    Job,
    JobLabel,
    LogLine,
    Metric,
    Transition,
)
from services.telemetry import catalogue, metrics, tracing

REASONS = get_args(Reason)
TRIED_AGAIN = ("worker_lost", "storage")
NEWEST_CHECKPOINTS = 2  # that stay in any case while a job has not ended
WEIGHTS = "model.safetensors"  # the file of a checkpoint
RETRY_DELAYS = (1.0, 10.0, 60.0)  # seconds before the second, third, … try after a loss; the last one repeats


# ── Submitting ────────────────────────────────────────────────────────────────────────────────────────────────────


def submit(database: Database, new: NewJob, limits: Limits = NO_LIMITS) -> tuple[str, bool]:
    """Inserts a job with its children, `queued`. Returns its id, and whether it is new.

    The same idempotency key of the same owner gives the job that it gave before.

    Raises:
        Busy: as many jobs wait as may.
        Conflict: the key was used for another request, the data set can't be used any more, or a job to follow has
            ended without success.
    """
    try:
        with database.write() as session:
            if (known := _by_key(session, new)) is not None:
                return known, False
            _refuse_if_busy(session, new.created_by, limits)
            _hold(session, new)
            job_id = _insert(session, new, None, None)
            _begin_if_ready(session, or_(Job.id == job_id, Job.parent_id == job_id))
            return job_id, True
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
    after = session.scalars(select(Dependency.needs).where(Dependency.job_id == job.id))
    # A data set that is to be registered has a new id each time; its name tells it.
    same_data = new.dataset_id == job.dataset_id if new.registers is None else new.name == job.name
    asked = new.kind, dict(new.spec), new.time_limit, new.on_failure, set(new.after)
    if not same_data or asked != (job.kind, job.spec, job.time_limit, job.on_failure, set(after)):
        raise Conflict(f"the idempotency key was used for job {job.id}, which asks for something else; take a new key")
    return job.id


def _refuse_if_busy(session: Session, user: str, limits: Limits) -> None:
    """Of several that submit at the same moment each may pass on the last free place; no more than that."""
    count = select(func.count()).select_from(Job).where(Job.state == "queued", Job.parent_id.is_(None))
    for most, query, whose in (
        (limits.waiting_of_user, count.where(Job.created_by == user), f"of {user}"),
        (limits.waiting, count, "of all users"),
    ):
        if most is not None and (session.scalar(query) or 0) >= most:
            raise Busy(f"{most} jobs {whose} wait already, which is the limit; try again when some have begun")


def _hold(session: Session, new: NewJob) -> None:
    """Locks what the job depends on, so that nothing happens to it before the job is there."""
    if new.registers is None:
        state = registry.hold(session, new.dataset_id)
        if state not in ("ready", "registering"):
            raise Conflict(f"data set {new.dataset_id} is {state}; name another")
    needed = select(Job.id, Job.state, Job.superseded_by).where(Job.id.in_(new.after)).order_by(Job.id)
    found = {job.id: job for job in session.execute(needed.with_for_update(read=True))}
    for needs in new.after:
        if needs not in found:
            raise NotFound(f"there is no job {needs} that could be followed")
        if found[needs].state in ("failed", "cancelled"):
            again = found[needs].superseded_by
            instead = f"follow {again}, which tries it again" if again else "retry it, and follow the new job"
            raise Conflict(f"job {needs} is {found[needs].state}; {instead}")


def _insert(session: Session, new: NewJob, parent_id: str | None, position: int | None) -> str:
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
            memory_gb=new.memory_gb,
            time_limit=new.time_limit,
            on_failure=new.on_failure,
            priority=new.priority,
            parent_id=parent_id,
            position=position,
            attempt=0,
            losses=0,
            max_attempts=new.max_attempts,
            wants_worker=False,
            not_before=0,
            cancel_requested=False,
            pause_requested=False,
            cloned_from=new.cloned_from,
            progress={},
            summary={},
            created_by=new.created_by,
            idempotency_key=new.idempotency_key,
            created_at=now_ms(),
            traceparent=tracing.current(),
        )
    )
    for label in sorted(set(new.labels)):
        session.execute(insert(JobLabel).values(job_id=job_id, label=label))
    for needs in sorted(set(new.after)):
        session.execute(insert(Dependency).values(job_id=job_id, needs=needs))
    _note(session, job_id, 0, "queued", "submitted")
    for number, child in enumerate(new.children):
        _insert(session, child, job_id, number)
    return job_id


# ── Claiming ──────────────────────────────────────────────────────────────────────────────────────────────────────


def claim(
    database: Database, worker: str, offer: Offer, lease_seconds: float, most_running: int | None = None
) -> Claim | None:
    """Takes the best waiting job for a worker, and leases it; None where there is none.

    Claims are made one at a time, so that shares and limits hold however many workers ask at once.
    """
    best = waiting(offer, most_running).limit(1).with_for_update(skip_locked=True, of=Job).scalar_subquery()
    with database.write() as session:
        database.one_at_a_time(session, "claim")
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
        worked = select(func.coalesce(func.sum(Attempt.ended_at - Attempt.started_at), 0))
        spent_ms = session.scalar(worked.where(Attempt.job_id == job.id)) or 0
        attempt = {"job_id": job.id, "number": job.attempt, "worker": worker, "version": offer.version}
        session.execute(insert(Attempt).values(**attempt, images_at_once=job.images_at_once, started_at=now_ms()))
        _note(session, job.id, job.attempt, "running", f"claimed by {worker}")
        if job.parent_id is not None:
            _start_parent(session, job.parent_id)
        known = select(Checkpoint).where(Checkpoint.job_id == job.id).order_by(Checkpoint.step.desc())
        children = session.scalars(select(Job.id).where(_child_of(job.id)).order_by(Job.position))
        return Claim(
            lease=Lease(job.id, job.attempt),
            kind=job.kind,
            name=job.name,
            spec=job.spec,
            images_at_once=job.images_at_once,
            dataset_id=job.dataset_id,
            checkpoints={c.step: {n: StoredFile(**f) for n, f in c.files.items()} for c in session.scalars(known)},
            children=tuple(children),
            seconds_left=None if job.time_limit is None else job.time_limit - int(spent_ms) / 1000,
            traceparent=job.traceparent,
        )


def _start_parent(session: Session, parent_id: str) -> None:
    started = changed(
        session.execute(
            update(Job)
            .where(Job.id == parent_id, Job.state.in_(("queued", "paused")))
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
        wishes = select(Job.cancel_requested, Job.pause_requested).where(Job.id == lease.job_id)
        cancel, pause = session.execute(wishes).one()
        if batch.metrics:
            _write_metrics(session, [{"job_id": lease.job_id, **metric} for metric in batch.metrics])
        if batch.logs:
            at = session.scalar(select(now_ms()))
            lines = [
                {"job_id": lease.job_id, "attempt": lease.attempt, "at": at, "level": level, "message": message}
                for level, message in batch.logs
            ]
            session.execute(insert(LogLine), lines)
        return Orders(cancel=cancel, pause=pause)


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
    database: Database, lease: Lease, step: int, epoch: int, files: Mapping[str, StoredFile], *, kept: bool = False
) -> list[str]:
    """Makes a checkpoint that is already stored the one from which a later attempt goes on.

    The one before it stays too, in case this one is damaged, and those that are `kept`; other older ones are
    forgotten. Returns the keys of files that nothing names any more.

    Raises:
        StaleAttempt: the lease was lost.
    """
    values = {
        "epoch": epoch,
        "attempt": lease.attempt,
        "files": {name: file.as_json() for name, file in files.items()},
        "kept": kept,
        "created_at": now_ms(),
    }
    with database.write() as session:
        farthest = select(func.max(Checkpoint.step)).where(Checkpoint.job_id == lease.job_id).scalar_subquery()
        # What gets on is not what kills its workers.
        _fence(session, lease, {"losses": case((func.coalesce(farthest, 0) < step, 0), else_=Job.losses)})
        newest = select(Checkpoint).where(Checkpoint.job_id == lease.job_id).order_by(Checkpoint.step.desc())
        known = session.scalars(newest).all()
        older = [checkpoint for checkpoint in known if checkpoint.step < step]
        before = [each for place, each in enumerate(older) if each.kept or place < NEWEST_CHECKPOINTS - 1]
        forgotten = [checkpoint for checkpoint in known if checkpoint not in before]
        steps = [checkpoint.step for checkpoint in forgotten]
        session.execute(delete(Checkpoint).where(Checkpoint.job_id == lease.job_id, Checkpoint.step.in_(steps)))
        session.execute(insert(Checkpoint).values(job_id=lease.job_id, step=step, **values))
        named = {file.key for file in files.values()}.union(*map(_keys, before))
        return sorted(set().union(*map(_keys, forgotten)) - named)


def finish(database: Database, lease: Lease, summary: Mapping[str, Any], artifacts: Sequence[NewArtifact]) -> set[str]:
    """Closes the job as `succeeded` with its figures and files, all visible at once, among them the weights of
    checkpoints that are kept; its checkpoints are forgotten.

    Returns the keys of the files that are named from now on. Repeating it after a commit whose acknowledgement was
    lost changes nothing.

    Raises:
        StaleAttempt: the lease was lost.
    """
    with database.write() as session:
        _lock_family(session, lease.job_id)
        if _ended_as(session, lease, "succeeded"):
            return _artifact_keys(session, lease.job_id)
        _end(session, lease, state="succeeded", outcome="succeeded", summary=dict(summary))
        for artifact in [*artifacts, *_kept_weights(session, lease.job_id)]:
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
    delays: Sequence[float] = RETRY_DELAYS,
) -> None:
    """Ends the attempt with a reason: tried again where that can help, else the job is `failed`.

    fewer: as many images at once as a run that was out of memory can be tried with; None: it can't do with fewer.
    findings: they go to the data set that the job was to register. delays: as `RETRY_DELAYS`.

    Raises:
        StaleAttempt: the lease was lost.
    """
    reason = reason if reason in REASONS else "internal"
    with database.write() as session:
        if _ended_as(session, lease, "failed"):
            return
        _lock_family(session, lease.job_id)
        _lose(session, lease, reason, error, delays, fewer, findings)


def release(database: Database, lease: Lease, why: str) -> None:
    """Gives a job back unfinished and unharmed: `queued` again at once, or `paused` or `cancelled` where that was
    asked for.

    Raises:
        StaleAttempt: the lease was lost.
    """
    with database.write() as session:
        _lock_family(session, lease.job_id)
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
        _lock_family(session, lease.job_id)
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
        family = _family(session, job_id)
        _cancel_idle(session, family, "cancelled before a worker had it")
        session.execute(update(Job).where(Job.id.in_(family), Job.state == "running").values(cancel_requested=True))
        return _state(session, job_id)


def pause(database: Database, job_id: str) -> str:
    """Has a job and its children stop: those that wait at once, those that run after they have written a checkpoint.

    Returns the job's state after that.

    Raises:
        Conflict: it has ended, or is being cancelled.
    """
    with database.write() as session:
        family = _family(session, job_id)
        _refuse_if_ended(session, job_id, "paused")
        paused = session.scalars(
            update(Job)
            .where(Job.id.in_(family), Job.state.in_(("queued", "running")), Job.worker.is_(None))
            .values(state="paused", wants_worker=False)
            .returning(Job.id)
            .execution_options(synchronize_session=False)
        ).all()
        for member in paused:
            _note(session, member, 0, "paused", "paused on request")
        session.execute(update(Job).where(Job.id.in_(family), Job.worker.is_not(None)).values(pause_requested=True))
        return _state(session, job_id)


def resume(database: Database, job_id: str) -> str:
    """Lets a paused job and its children go on. Returns the job's state after that; one that runs goes on running.

    Raises:
        Conflict: it has ended, or is being cancelled.
    """
    with database.write() as session:
        family = _family(session, job_id)
        _refuse_if_ended(session, job_id, "resumed")
        session.execute(update(Job).where(Job.id.in_(family)).values(pause_requested=False))
        has_begun = and_(_has_children(), Job.started_at.is_not(None))
        resumed_jobs = session.execute(
            update(Job)
            .where(Job.id.in_(family), Job.state == "paused")
            .values(state=case((has_begun, "running"), else_="queued"))
            .returning(Job.id, Job.state)
            .execution_options(synchronize_session=False)
        ).all()
        for member, state in resumed_jobs:
            _note(session, member, 0, state, "resumed on request")
        _begin_if_ready(session, Job.id.in_(family))
        _move_on(session, job_id)
        return _state(session, job_id)


def set_priority(database: Database, job_id: str, priority: int) -> None:
    """Gives a job and its children another place in the queue.

    Raises:
        Conflict: it has ended.
    """
    with database.write() as session:
        family = _family(session, job_id)
        _refuse_if_ended(session, job_id, "given another priority")
        session.execute(update(Job).where(Job.id.in_(family), Job.state.not_in(TERMINAL)).values(priority=priority))


def retry(database: Database, job_id: str, limits: Limits = NO_LIMITS) -> str:
    """Tries a job that failed or was cancelled again, as a new job, whose id is returned; asked again, the same one.

    The new job goes on from the newest checkpoint, which becomes its own. That of a parent takes over the children that
    have succeeded, and tries the others again. A child takes its place among its siblings while they work.

    Raises:
        NotFound: there is no such job.
        Busy: as many jobs wait as may.
        Conflict: it has not failed; its parent has ended, and is to be tried again itself; or it registers a data set.
    """
    with database.write() as session:
        _family(session, job_id)
        job = session.get_one(Job, job_id)
        if job.superseded_by is not None:
            return job.superseded_by
        if job.state not in ("failed", "cancelled"):
            raise Conflict(f"job {job_id} is {job.state}; only one that failed or was cancelled can be tried again")
        if job.kind == "register":
            raise Conflict("register the data set again: what was wrong with its files may have been mended")
        if job.parent_id is not None:
            parent = session.scalars(select(Job).where(Job.id == job.parent_id).with_for_update()).one()
            if parent.state in TERMINAL or parent.worker is not None or parent.cancel_requested:
                raise Conflict(f"the others have ended; retry {parent.id}, which keeps what has succeeded")
        _refuse_if_busy(session, job.created_by, limits)
        again = _again(session, job, job.parent_id)
        if session.scalar(select(exists().where(_child_of(again)))):
            _move_on(session, again)
        return again


def _again(session: Session, job: Job, parent_id: str | None) -> str:
    """A new job in the place of one that has ended without success."""
    labels = session.scalars(select(JobLabel.label).where(JobLabel.job_id == job.id)).all()
    after = session.scalars(select(Dependency.needs).where(Dependency.job_id == job.id)).all()
    copied = {name: getattr(job, name) for name in _COPIED}
    new = NewJob(**copied, labels=labels, after=after)
    _hold(session, new)
    again = _insert(session, new, parent_id, job.position)
    session.execute(update(Job).where(Job.id == job.id).values(superseded_by=again))
    _copy_metrics(session, job.id, again)
    session.execute(update(Checkpoint).where(Checkpoint.job_id == job.id).values(job_id=again))
    _note(session, again, 0, "queued", f"tries job {job.id} again")
    for child in session.scalars(select(Job).where(_child_of(job.id)).order_by(Job.position)).all():
        if child.state == "succeeded":
            session.execute(update(Job).where(Job.id == child.id).values(parent_id=again))
        else:
            _again(session, child, again)
    _begin_if_ready(session, or_(Job.id == again, Job.parent_id == again))
    return again


def _copy_metrics(session: Session, job_id: str, again: str) -> None:
    """Gives the figures up to a job's newest checkpoint to the job that goes on from there."""
    newest = select(func.max(Checkpoint.step)).where(Checkpoint.job_id == job_id).scalar_subquery()
    known = select(literal(again), Metric.name, Metric.step, Metric.epoch, Metric.value)
    known = known.where(Metric.job_id == job_id, Metric.step <= newest)
    session.execute(insert(Metric).from_select(["job_id", "name", "step", "epoch", "value"], known))


_COPIED = (
    "kind",
    "name",
    "spec",
    "dataset_id",
    "created_by",
    "priority",
    "resource_class",
    "weights",
    "memory_gb",
    "time_limit",
    "on_failure",
    "max_attempts",
    "cloned_from",
)


def expire_leases(database: Database, delays: Sequence[float] = RETRY_DELAYS) -> list[str]:
    """Takes every job back whose worker has been silent past its lease. Returns their ids."""
    is_silent = and_(Job.state == "running", Job.worker.is_not(None), Job.lease_expires_at < now_ms())
    with database.read() as session:
        silent = session.execute(select(Job.id, Job.attempt, Job.worker).where(is_silent)).all()
    expired = []
    for job_id, attempt, worker in silent:
        with database.write() as session:
            _lock_family(session, job_id)
            held = select(Job.id).where(Job.id == job_id, Job.attempt == attempt, is_silent)
            if session.scalar(held.with_for_update(skip_locked=True)) is not None:
                _lose(session, Lease(job_id, attempt), "worker_lost", f"worker {worker} went silent", delays)
                expired.append(job_id)
    return expired


def forget(session: Session, job_ids: Sequence[str]) -> None:
    """Deletes jobs that have ended, with all that was written about them."""
    for table in (Attempt, Transition, Metric, LogLine, Checkpoint, Artifact, JobLabel, Dependency):
        session.execute(delete(table).where(table.job_id.in_(job_ids)))
    session.execute(delete(Dependency).where(Dependency.needs.in_(job_ids)))
    session.execute(delete(Job).where(Job.id.in_(job_ids), Job.state.in_(TERMINAL)))


def count_waiting(database: Database, resource_class: str) -> int:
    """How many jobs of a resource class a worker could claim now."""
    with database.read() as session:
        wanted = select(func.count()).where(Job.wants_worker, Job.resource_class == resource_class)
        return session.scalar(wanted.where(Job.not_before <= now_ms())) or 0


# ── Pieces ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _keys(checkpoint: Checkpoint) -> set[str]:
    return {str(file["key"]) for file in checkpoint.files.values()}


def _kept_weights(session: Session, job_id: str) -> list[NewArtifact]:
    """The weights of a job's kept checkpoints, under names of their own."""
    kept = select(Checkpoint).where(Checkpoint.job_id == job_id, Checkpoint.kept).order_by(Checkpoint.step)
    return [
        NewArtifact(f"epoch-{row.epoch:04d}.{WEIGHTS}", "application/octet-stream", StoredFile(**row.files[WEIGHTS]))
        for row in session.scalars(kept)
    ]


def _artifact_keys(session: Session, job_id: str) -> set[str]:
    return set(session.scalars(select(Artifact.key).where(Artifact.job_id == job_id)))


def _held_by(lease: Lease) -> Any:
    return and_(Job.id == lease.job_id, Job.attempt == lease.attempt, Job.state == "running", Job.worker.is_not(None))


def _fence(session: Session, lease: Lease, changes: Mapping[str, Any]) -> None:
    """Locks the job's row and applies `changes`, if the lease still holds."""
    statement = update(Job).where(_held_by(lease)).values(changes or {"attempt": Job.attempt})
    if not changed(session.execute(statement)):
        metrics.count(catalogue.STALE_WRITES)
        raise StaleAttempt(f"attempt {lease.attempt} of job {lease.job_id} no longer holds its lease")


def _end(session: Session, lease: Lease, *, state: str, outcome: str, detail: str = "", **changes: Any) -> None:
    """Ends the attempt and moves the job to `state`; to `paused` in place of `queued` where that was asked for."""
    if state in TERMINAL:
        changes["finished_at"] = now_ms()
    elif session.scalar(select(Job.pause_requested).where(Job.id == lease.job_id).with_for_update()):
        state, outcome = "paused", "paused" if outcome == "released" else outcome
        changes["pause_requested"] = False
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
    delays: Sequence[float],
    fewer: int | None = None,
    findings: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Ends an attempt that failed: cancelled if that was asked for, tried again if that can help, else failed.

    What is no fault of the job's is tried again until it was lost `max_attempts` times without getting any further,
    later each time; want of memory once, with fewer images at once, to which the job is held from then on.
    """
    losses, most, cancelled, limit = session.execute(
        select(Job.losses, Job.max_attempts, Job.cancel_requested, Job.images_at_once).where(Job.id == lease.job_id)
    ).one()
    if cancelled:
        _end(session, lease, state="cancelled", outcome="cancelled", detail=f"cancelled on request ({error})")
    elif reason in TRIED_AGAIN and losses + 1 < most:
        changes = {"losses": losses + 1, "not_before": now_ms() + _ms(delays[min(losses, len(delays) - 1)])}
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


def _state(session: Session, job_id: str) -> str:
    return session.scalars(select(Job.state).where(Job.id == job_id)).one()


# ── Families and followers ────────────────────────────────────────────────────────────────────────────────────────


def _child_of(job_id: str) -> ColumnElement[bool]:
    """A child, but for those in whose place another was put."""
    return and_(Job.parent_id == job_id, Job.superseded_by.is_(None))


def _has_children() -> ColumnElement[bool]:
    child = aliased(Job)
    return select(child.id).where(child.parent_id == Job.id).exists()


def _family(session: Session, job_id: str) -> list[str]:
    """A job and its children, locked: children first, as everywhere, so that two transactions never wait for each
    other. Raises NotFound."""
    children = session.scalars(select(Job.id).where(Job.parent_id == job_id).order_by(Job.id).with_for_update()).all()
    if session.scalar(select(Job.id).where(Job.id == job_id).with_for_update()) is None:
        raise NotFound(f"there is no job {job_id}")
    return [*children, job_id]


def _lock_family(session: Session, job_id: str) -> None:
    """Locks a job that is to end with its siblings, where the failure of one ends the others: all in the same order."""
    parent = aliased(Job)
    fails_fast = select(parent.id).join(Job, Job.parent_id == parent.id)
    parent_id = session.scalar(fails_fast.where(Job.id == job_id, parent.on_failure == "fail_fast"))
    if parent_id is not None:
        session.execute(select(Job.id).where(Job.parent_id == parent_id).order_by(Job.id).with_for_update())


def _refuse_if_ended(session: Session, job_id: str, what: str) -> None:
    job = session.execute(select(Job.state, Job.cancel_requested).where(Job.id == job_id)).one()
    if job.state in TERMINAL or job.cancel_requested:
        state = job.state if job.state in TERMINAL else "being cancelled"
        raise Conflict(f"job {job_id} is {state} and can't be {what}")


def _begin_if_ready(session: Session, which: ColumnElement[bool]) -> None:
    """Has those queued jobs want a worker that wait for nothing else: the one place that decides it."""
    needed = aliased(Job)
    unmet = (
        select(Dependency.job_id)
        .join(needed, needed.id == Dependency.needs)
        .where(or_(Dependency.job_id == Job.id, Dependency.job_id == Job.parent_id), needed.state != "succeeded")
        .exists()
    )
    dataset = select(Dataset.state).where(Dataset.id == Job.dataset_id).scalar_subquery()
    is_ready = and_(or_(Job.kind == "register", dataset == "ready"), ~unmet, ~_has_children())
    session.execute(
        update(Job)
        .where(which, Job.state == "queued", is_ready)
        .values(wants_worker=True)
        .execution_options(synchronize_session=False)
    )


def _cancel_idle(session: Session, job_ids: Sequence[str], why: str, error: str | None = None) -> None:
    """Closes those of some locked jobs that no worker has, and all that depends on them."""
    idle = session.scalars(
        update(Job)
        .where(Job.id.in_(job_ids), Job.state.not_in(TERMINAL), Job.worker.is_(None))
        .values(state="cancelled", error=error, wants_worker=False, finished_at=now_ms())
        .returning(Job.id)
        .execution_options(synchronize_session=False)
    ).all()
    for job_id in idle:
        _note(session, job_id, 0, "cancelled", why)
    for job_id in idle:
        _settle(session, job_id)


def _settle(session: Session, job_id: str, findings: Sequence[Mapping[str, Any]] = ()) -> None:
    """What follows from a job's end: its parent and its followers move on, and a data set that it registered is ready
    or refused."""
    job = session.execute(
        select(Job.kind, Job.state, Job.parent_id, Job.dataset_id, Job.summary, Job.error).where(Job.id == job_id)
    ).one()
    if job.kind == "register":
        _settle_dataset(session, job_id, job, findings)
    if job.parent_id is not None:
        _move_on(session, job.parent_id)
    followers = select(Dependency.job_id).where(Dependency.needs == job_id).order_by(Dependency.job_id)
    for follower in session.scalars(followers).all():
        family = _family(session, follower)
        if job.state == "succeeded":
            _begin_if_ready(session, Job.id.in_(family))
        else:
            why = f"job {job_id}, which it was to follow, is {job.state}"
            _cancel_idle(session, family, why, error=why)


def _settle_dataset(session: Session, job_id: str, job: Any, findings: Sequence[Mapping[str, Any]]) -> None:
    if job.state == "succeeded":
        stored = session.scalars(select(Artifact).where(Artifact.job_id == job_id)).all()
        files = {file.name: {"key": file.key, "sha256": file.sha256, "size": file.size} for file in stored}
        accepted = registry.accept(session, job.dataset_id, job.summary, files)
        if accepted != job.dataset_id:
            session.execute(delete(Artifact).where(Artifact.job_id == job_id))
        # The jobs that waited begin; on the data set that has this content, where that was there already.
        leaves = _waiting_for(session, job.dataset_id)
        of_dataset = and_(Job.dataset_id == job.dataset_id, Job.kind != "register")
        session.execute(update(Job).where(of_dataset).values(dataset_id=accepted))
        _begin_if_ready(session, Job.id.in_(leaves))
        return
    why = job.error or "registering it was cancelled"
    registry.refuse(session, job.dataset_id, why, findings)
    error = f"its data set was refused: {why}"
    for waiting_job in _waiting_for(session, job.dataset_id):
        values = {"state": "failed", "reason": "invalid_input", "error": error, "finished_at": now_ms()}
        is_open = Job.state.in_(("queued", "paused"))
        if changed(session.execute(update(Job).where(Job.id == waiting_job, is_open).values(**values))):
            _note(session, waiting_job, 0, "failed", error)
            _settle(session, waiting_job)


def _waiting_for(session: Session, dataset_id: str) -> Sequence[str]:
    """Jobs without children that wait for a data set, locked: children before parents, as everywhere."""
    query = select(Job.id).where(Job.dataset_id == dataset_id, Job.state.in_(("queued", "paused")))
    query = query.where(Job.kind != "register", ~_has_children()).order_by(Job.parent_id.is_(None), Job.id)
    return session.scalars(query.with_for_update(of=Job)).all()


def _move_on(session: Session, parent_id: str) -> None:
    """Moves a parent on: it pools once all its children have ended, is closed where there is nothing to be pooled, and
    lets the others go where one has failed and that was asked for.

    The parent's row is locked first: of two children that end at the same time, the second sees the first.
    """
    parent = session.execute(
        select(Job.kind, Job.state, Job.worker, Job.cancel_requested, Job.on_failure)
        .where(Job.id == parent_id)
        .with_for_update()
    ).one()
    children = session.execute(
        select(Job.id, Job.state, Job.reason, Job.position, Job.error)
        .where(_child_of(parent_id))
        .order_by(Job.position)
    ).all()
    if parent.state in TERMINAL or parent.worker is not None or not children:
        return
    failed = next((child for child in children if child.state == "failed"), None)
    running = [child.id for child in children if child.state not in TERMINAL]
    if running:
        if failed is not None and parent.on_failure == "fail_fast":
            session.execute(
                update(Job).where(Job.id.in_(running), Job.worker.is_not(None)).values(cancel_requested=True)
            )
            _cancel_idle(session, running, f"child {failed.position} failed")
        return
    # A study tells what it lacks; a cross-validation without a fold would be a figure of something else.
    enough = any if parent.kind == "study" and not parent.cancel_requested else all
    is_open = and_(Job.id == parent_id, Job.state.not_in(TERMINAL), Job.worker.is_(None))
    if enough(child.state == "succeeded" for child in children):
        session.execute(update(Job).where(is_open, Job.state != "paused").values(wants_worker=True))
        return
    values: dict[str, Any] = {"state": "cancelled", "error": None}
    if failed is not None:
        error = f"child {failed.position} failed: {failed.error}"
        values = {"state": "failed", "reason": failed.reason, "error": error}
    values |= {"wants_worker": False, "finished_at": now_ms()}
    if changed(session.execute(update(Job).where(is_open).values(**values))):
        _note(session, parent_id, 0, values["state"], values["error"] or "its children were cancelled")
        _settle(session, parent_id)


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
