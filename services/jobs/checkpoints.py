"""Which checkpoints of a job there are, under its lease."""

from collections.abc import Mapping

from sqlalchemy import case, delete, func, insert, select
from sqlalchemy.orm import Session

from services.claims import Lease, NewArtifact, StoredFile
from services.database import Database, now_ms
from services.jobs.rows import fence
from services.tables import Checkpoint, Job

NEWEST_CHECKPOINTS = 2  # that stay in any case while a job has not ended
WEIGHTS = "model.safetensors"  # the file of a checkpoint


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
        fence(session, lease, {"losses": case((func.coalesce(farthest, 0) < step, 0), else_=Job.losses)})
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


def _keys(checkpoint: Checkpoint) -> set[str]:
    return {str(file["key"]) for file in checkpoint.files.values()}


def kept_weights(session: Session, job_id: str) -> list[NewArtifact]:
    """The weights of a job's kept checkpoints, under names of their own."""
    kept = select(Checkpoint).where(Checkpoint.job_id == job_id, Checkpoint.kept).order_by(Checkpoint.step)
    return [
        NewArtifact(f"epoch-{row.epoch:04d}.{WEIGHTS}", "application/octet-stream", StoredFile(**row.files[WEIGHTS]))
        for row in session.scalars(kept)
    ]
