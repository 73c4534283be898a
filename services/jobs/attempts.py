"""What happens under a lease: claimed, renewed, finished, failed, given back; and taken back once it has run out."""

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from sqlalchemy import and_, delete, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from services.claims import Batch, Claim, Lease, NewArtifact, Orders, Reason, StoredFile
from services.database import Database, now_ms
from services.jobs.checkpoints import kept_weights
from services.jobs.families import child_of, lock_family, settle
from services.jobs.rows import changed, fence, ms, note
from services.order import Offer, waiting
from services.tables import TERMINAL, Artifact, Attempt, Checkpoint, Job, LogLine, Metric

TRIED_AGAIN = ("worker_lost", "storage")
RETRY_DELAYS = (1.0, 10.0, 60.0)  # seconds before the second, third, … try after a loss; the last one repeats
REASONS = get_args(Reason)


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
                lease_expires_at=now_ms() + ms(lease_seconds),
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
        note(session, job.id, job.attempt, "running", f"claimed by {worker}")
        if job.parent_id is not None:
            _start_parent(session, job.parent_id)
        known = select(Checkpoint).where(Checkpoint.job_id == job.id).order_by(Checkpoint.step.desc())
        children = session.scalars(select(Job.id).where(child_of(job.id)).order_by(Job.position))
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
            model_version_id=job.model_version_id,
            traceparent=job.traceparent,
        )


def count_waiting(database: Database) -> dict[str, int]:
    """How many jobs a worker could claim now, by resource class; only classes that have any."""
    with database.read() as session:
        waiting_jobs = select(Job.resource_class, func.count()).where(Job.wants_worker, Job.not_before <= now_ms())
        found = session.execute(waiting_jobs.group_by(Job.resource_class))
        return {row[0]: row[1] for row in found}


def renew(database: Database, lease: Lease, lease_seconds: float, batch: Batch | None = None) -> Orders:
    """Renews the lease and writes what the child said since. Returns what the worker has to do.

    Raises:
        StaleAttempt: the lease was lost; nothing was written.
    """
    batch = batch or Batch()
    changes: dict[str, Any] = {"lease_expires_at": now_ms() + ms(lease_seconds)}
    if batch.progress is not None:
        changes["progress"] = batch.progress
    with database.write() as session:
        fence(session, lease, changes)
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
        fence(session, lease, {})
        session.execute(delete(Metric).where(Metric.job_id == lease.job_id, Metric.step > step))
        session.execute(
            update(Attempt)
            .where(Attempt.job_id == lease.job_id, Attempt.number == lease.attempt)
            .values(resumed_from_step=step)
        )


def finish(database: Database, lease: Lease, summary: Mapping[str, Any], artifacts: Sequence[NewArtifact]) -> set[str]:
    """Closes the job as `succeeded` with its figures and files, all visible at once, among them the weights of
    checkpoints that are kept; its checkpoints are forgotten.

    Returns the keys of the files that are named from now on. Repeating it after a commit whose acknowledgement was
    lost changes nothing.

    Raises:
        StaleAttempt: the lease was lost.
    """
    with database.write() as session:
        lock_family(session, lease.job_id)
        if _ended_as(session, lease, "succeeded"):
            return _artifact_keys(session, lease.job_id)
        _end(session, lease, state="succeeded", outcome="succeeded", summary=dict(summary))
        for artifact in [*artifacts, *kept_weights(session, lease.job_id)]:
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
        settle(session, lease.job_id)
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
        lock_family(session, lease.job_id)
        _lose(session, lease, reason, error, delays, fewer, findings)


def release(database: Database, lease: Lease, why: str) -> None:
    """Gives a job back unfinished and unharmed: `queued` again at once, or `paused` or `cancelled` where that was
    asked for.

    Raises:
        StaleAttempt: the lease was lost.
    """
    with database.write() as session:
        lock_family(session, lease.job_id)
        if _is_cancelled(session, lease):
            _end(session, lease, state="cancelled", outcome="cancelled", detail="cancelled on request")
            settle(session, lease.job_id)
        else:
            _end(session, lease, state="queued", outcome="released", detail=why)


def confirm_cancel(database: Database, lease: Lease) -> None:
    """Closes the job as `cancelled`, its child process being gone.

    Raises:
        StaleAttempt: the lease was lost.
    """
    with database.write() as session:
        lock_family(session, lease.job_id)
        if _ended_as(session, lease, "cancelled"):
            return
        _end(session, lease, state="cancelled", outcome="cancelled", detail="cancelled on request")
        settle(session, lease.job_id)


def expire_leases(database: Database, delays: Sequence[float] = RETRY_DELAYS) -> list[str]:
    """Takes every job back whose worker has been silent past its lease. Returns their ids."""
    is_silent = and_(Job.state == "running", Job.worker.is_not(None), Job.lease_expires_at < now_ms())
    with database.read() as session:
        silent = session.execute(select(Job.id, Job.attempt, Job.worker).where(is_silent)).all()
    expired = []
    for job_id, attempt, worker in silent:
        with database.write() as session:
            lock_family(session, job_id)
            held = select(Job.id).where(Job.id == job_id, Job.attempt == attempt, is_silent)
            if session.scalar(held.with_for_update(skip_locked=True)) is not None:
                _lose(session, Lease(job_id, attempt), "worker_lost", f"worker {worker} went silent", delays)
                expired.append(job_id)
    return expired


def _start_parent(session: Session, parent_id: str) -> None:
    started = changed(
        session.execute(
            update(Job)
            .where(Job.id == parent_id, Job.state.in_(("queued", "paused")))
            .values(state="running", started_at=func.coalesce(Job.started_at, now_ms()))
        )
    )
    if started:
        note(session, parent_id, 0, "running", "its first child was claimed")


def _end(session: Session, lease: Lease, *, state: str, outcome: str, detail: str = "", **changes: Any) -> None:
    """Ends the attempt and moves the job to `state`; to `paused` in place of `queued` where that was asked for."""
    if state in TERMINAL:
        changes["finished_at"] = now_ms()
    elif session.scalar(select(Job.pause_requested).where(Job.id == lease.job_id).with_for_update()):
        state, outcome = "paused", "paused" if outcome == "released" else outcome
        changes["pause_requested"] = False
    else:
        changes["wants_worker"] = True
    fence(session, lease, {"state": state, "worker": None, "lease_expires_at": None, **changes})
    session.execute(
        update(Attempt)
        .where(Attempt.job_id == lease.job_id, Attempt.number == lease.attempt)
        .values(ended_at=now_ms(), outcome=outcome)
    )
    note(session, lease.job_id, lease.attempt, state, detail or outcome)


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
        changes = {"losses": losses + 1, "not_before": now_ms() + ms(delays[min(losses, len(delays) - 1)])}
        _end(session, lease, state="queued", outcome=reason, detail=error, **changes)
        return
    elif reason == "out_of_memory" and fewer is not None and limit is None:
        detail = f"{error}; tried once more with {fewer} images at once"
        _end(session, lease, state="queued", outcome=reason, detail=detail, images_at_once=fewer)
        return
    else:
        changes = {"losses": losses + 1, "reason": reason, "error": error}
        _end(session, lease, state="failed", outcome=reason, detail=error, **changes)
    settle(session, lease.job_id, findings)


def _ended_as(session: Session, lease: Lease, state: str) -> bool:
    query = select(Job.id).where(Job.id == lease.job_id, Job.attempt == lease.attempt, Job.state == state)
    return session.scalar(query) is not None


def _is_cancelled(session: Session, lease: Lease) -> bool:
    return bool(session.scalar(select(Job.cancel_requested).where(Job.id == lease.job_id)))


def _artifact_keys(session: Session, job_id: str) -> set[str]:
    return set(session.scalars(select(Artifact.key).where(Artifact.job_id == job_id)))


def _write_metrics(session: Session, rows: list[dict[str, Any]]) -> None:
    """A figure that is said again (the end of an epoch, after a resume just before it) replaces itself."""
    dialect_insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    statement = dialect_insert(Metric)
    new = {"value": statement.excluded.value, "epoch": statement.excluded.epoch}
    session.execute(statement.on_conflict_do_update(index_elements=["job_id", "name", "step"], set_=new), rows)
