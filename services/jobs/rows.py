"""The statements that every part of the machine is made of: the fence, and the note of what happened."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import CursorResult, and_, insert, update
from sqlalchemy.orm import Session

from services.claims import Lease
from services.database import now_ms
from services.errors import StaleAttempt
from services.tables import Job, Transition
from services.telemetry import catalogue, metrics


def ms(seconds: float) -> int:
    return round(seconds * 1000)


def changed(result: Any) -> bool:
    """Whether a statement that was to change one row did."""
    return isinstance(result, CursorResult) and result.rowcount == 1


def note(session: Session, job_id: str, attempt: int, state: str, detail: str) -> None:
    session.execute(insert(Transition).values(job_id=job_id, at=now_ms(), attempt=attempt, state=state, detail=detail))


def fence(session: Session, lease: Lease, changes: Mapping[str, Any]) -> None:
    """Locks the job's row and applies `changes`, if the lease still holds."""
    statement = update(Job).where(_held_by(lease)).values(changes or {"attempt": Job.attempt})
    if not changed(session.execute(statement)):
        metrics.count(catalogue.STALE_WRITES)
        raise StaleAttempt(f"attempt {lease.attempt} of job {lease.job_id} no longer holds its lease")


def _held_by(lease: Lease) -> Any:
    return and_(Job.id == lease.job_id, Job.attempt == lease.attempt, Job.state == "running", Job.worker.is_not(None))
