"""What people ask of a job that is there: cancel, pause, resume, another priority."""

from sqlalchemy import and_, case, select, update
from sqlalchemy.orm import Session

from services.database import Also, Database, nothing
from services.errors import Conflict
from services.jobs.families import begin_if_ready, cancel_idle, has_children, lock_with_children, move_on
from services.jobs.rows import note
from services.tables import TERMINAL, Job


def cancel(database: Database, job_id: str, also: Also = nothing) -> str:
    """Cancels a job and its children: those that wait at once, those that run as soon as their worker hears of it.

    Returns the job's state after that. A job that has ended stays as it is.
    """
    with database.write() as session:
        family = lock_with_children(session, job_id)
        cancel_idle(session, family, "cancelled before a worker had it")
        session.execute(update(Job).where(Job.id.in_(family), Job.state == "running").values(cancel_requested=True))
        also(session, job_id)
        return _state(session, job_id)


def pause(database: Database, job_id: str, also: Also = nothing) -> str:
    """Has a job and its children stop: those that wait at once, those that run after they have written a checkpoint.

    Returns the job's state after that.

    Raises:
        Conflict: it has ended, or is being cancelled.
    """
    with database.write() as session:
        family = lock_with_children(session, job_id)
        _refuse_if_ended(session, job_id, "paused")
        paused = session.scalars(
            update(Job)
            .where(Job.id.in_(family), Job.state.in_(("queued", "running")), Job.worker.is_(None))
            .values(state="paused", wants_worker=False)
            .returning(Job.id)
            .execution_options(synchronize_session=False)
        ).all()
        for member in paused:
            note(session, member, 0, "paused", "paused on request")
        session.execute(update(Job).where(Job.id.in_(family), Job.worker.is_not(None)).values(pause_requested=True))
        also(session, job_id)
        return _state(session, job_id)


def resume(database: Database, job_id: str, also: Also = nothing) -> str:
    """Lets a paused job and its children go on. Returns the job's state after that; one that runs goes on running.

    Raises:
        Conflict: it has ended, or is being cancelled.
    """
    with database.write() as session:
        family = lock_with_children(session, job_id)
        _refuse_if_ended(session, job_id, "resumed")
        session.execute(update(Job).where(Job.id.in_(family)).values(pause_requested=False))
        has_begun = and_(has_children(), Job.started_at.is_not(None))
        resumed_jobs = session.execute(
            update(Job)
            .where(Job.id.in_(family), Job.state == "paused")
            .values(state=case((has_begun, "running"), else_="queued"))
            .returning(Job.id, Job.state)
            .execution_options(synchronize_session=False)
        ).all()
        for member, state in resumed_jobs:
            note(session, member, 0, state, "resumed on request")
        begin_if_ready(session, Job.id.in_(family))
        move_on(session, job_id)
        also(session, job_id)
        return _state(session, job_id)


def set_priority(database: Database, job_id: str, priority: int, also: Also = nothing) -> None:
    """Gives a job and its children another place in the queue.

    Raises:
        Conflict: it has ended.
    """
    with database.write() as session:
        family = lock_with_children(session, job_id)
        _refuse_if_ended(session, job_id, "given another priority")
        session.execute(update(Job).where(Job.id.in_(family), Job.state.not_in(TERMINAL)).values(priority=priority))
        also(session, job_id)


def _refuse_if_ended(session: Session, job_id: str, what: str) -> None:
    job = session.execute(select(Job.state, Job.cancel_requested).where(Job.id == job_id)).one()
    if job.state in TERMINAL or job.cancel_requested:
        state = job.state if job.state in TERMINAL else "being cancelled"
        raise Conflict(f"job {job_id} is {state} and can't be {what}")


def _state(session: Session, job_id: str) -> str:
    return session.scalars(select(Job.state).where(Job.id == job_id)).one()
