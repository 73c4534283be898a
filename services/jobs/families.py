"""Parents, children, followers: what the end of one job means for the others, and in which order they are locked.

Rows are locked children before parents, jobs before those that follow them, so that two transactions never wait for
each other.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, or_, select, update
from sqlalchemy.orm import Session, aliased

from services import model_registry, outbox, registry
from services.database import now_ms
from services.errors import NotFound
from services.jobs.rows import changed, note
from services.tables import TERMINAL, Artifact, Dataset, Dependency, Job


def settle(session: Session, job_id: str, findings: Sequence[Mapping[str, Any]] = ()) -> None:
    """What follows from a job's end: webhooks hear of it, its parent and its followers move on, and a data set that it
    registered or a model that it imported is ready or refused."""
    job = session.execute(
        select(Job.kind, Job.state, Job.parent_id, Job.dataset_id, Job.summary, Job.error).where(Job.id == job_id)
    ).one()
    if job.kind == "trial":
        return  # it answers one request: nobody hears of it, and nothing follows it
    outbox.tell_end(session, job_id)
    if job.kind == "register":
        _settle_dataset(session, job_id, job, findings)
    if job.kind == "import":
        model_registry.settle(session, job_id, job.state, job.summary, job.error, findings)
    if job.parent_id is not None:
        move_on(session, job.parent_id)
    followers = select(Dependency.job_id).where(Dependency.needs == job_id).order_by(Dependency.job_id)
    for follower in session.scalars(followers).all():
        family = lock_with_children(session, follower)
        if job.state == "succeeded":
            begin_if_ready(session, Job.id.in_(family))
        else:
            why = f"job {job_id}, which it was to follow, is {job.state}"
            cancel_idle(session, family, why, error=why)


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
        begin_if_ready(session, Job.id.in_(leaves))
        return
    why = job.error or "registering it was cancelled"
    registry.refuse(session, job.dataset_id, why, findings)
    error = f"its data set was refused: {why}"
    for waiting_job in _waiting_for(session, job.dataset_id):
        values = {"state": "failed", "reason": "invalid_input", "error": error, "finished_at": now_ms()}
        is_open = Job.state.in_(("queued", "paused"))
        if changed(session.execute(update(Job).where(Job.id == waiting_job, is_open).values(**values))):
            note(session, waiting_job, 0, "failed", error)
            settle(session, waiting_job)


def _waiting_for(session: Session, dataset_id: str) -> Sequence[str]:
    """Jobs without children that wait for a data set, locked: children before parents, as everywhere."""
    query = select(Job.id).where(Job.dataset_id == dataset_id, Job.state.in_(("queued", "paused")))
    query = query.where(Job.kind != "register", ~has_children()).order_by(Job.parent_id.is_(None), Job.id)
    return session.scalars(query.with_for_update(of=Job)).all()


def move_on(session: Session, parent_id: str) -> None:
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
        select(Job.id, Job.state, Job.reason, Job.position, Job.error).where(child_of(parent_id)).order_by(Job.position)
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
            cancel_idle(session, running, f"child {failed.position} failed")
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
        note(session, parent_id, 0, values["state"], values["error"] or "its children were cancelled")
        settle(session, parent_id)


def begin_if_ready(session: Session, which: ColumnElement[bool]) -> None:
    """Has those queued jobs want a worker that wait for nothing else: the one place that decides it."""
    needed = aliased(Job)
    unmet = (
        select(Dependency.job_id)
        .join(needed, needed.id == Dependency.needs)
        .where(or_(Dependency.job_id == Job.id, Dependency.job_id == Job.parent_id), needed.state != "succeeded")
        .exists()
    )
    dataset = select(Dataset.state).where(Dataset.id == Job.dataset_id).scalar_subquery()
    needs_none = or_(Job.kind == "register", Job.dataset_id.is_(None))
    is_ready = and_(or_(needs_none, dataset == "ready"), ~unmet, ~has_children())
    session.execute(
        update(Job)
        .where(which, Job.state == "queued", is_ready)
        .values(wants_worker=True)
        .execution_options(synchronize_session=False)
    )


def cancel_idle(session: Session, job_ids: Sequence[str], why: str, error: str | None = None) -> None:
    """Closes those of some locked jobs that no worker has, and all that depends on them."""
    idle = session.scalars(
        update(Job)
        .where(Job.id.in_(job_ids), Job.state.not_in(TERMINAL), Job.worker.is_(None))
        .values(state="cancelled", error=error, wants_worker=False, finished_at=now_ms())
        .returning(Job.id)
        .execution_options(synchronize_session=False)
    ).all()
    for job_id in idle:
        note(session, job_id, 0, "cancelled", why)
    for job_id in idle:
        settle(session, job_id)


def child_of(job_id: str) -> ColumnElement[bool]:
    """A child, but for those in whose place another was put."""
    return and_(Job.parent_id == job_id, Job.superseded_by.is_(None))


def has_children() -> ColumnElement[bool]:
    child = aliased(Job)
    return select(child.id).where(child.parent_id == Job.id).exists()


def lock_with_children(session: Session, job_id: str) -> list[str]:
    """A job and its children, locked: children first, as everywhere, so that two transactions never wait for each
    other. Raises NotFound."""
    children = session.scalars(select(Job.id).where(Job.parent_id == job_id).order_by(Job.id).with_for_update()).all()
    if session.scalar(select(Job.id).where(Job.id == job_id).with_for_update()) is None:
        raise NotFound(f"there is no job {job_id}")
    return [*children, job_id]


def lock_family(session: Session, job_id: str) -> None:
    """Locks a job that is to end with its siblings, where the failure of one ends the others: all in the same order."""
    parent = aliased(Job)
    fails_fast = select(parent.id).join(Job, Job.parent_id == parent.id)
    parent_id = session.scalar(fails_fast.where(Job.id == job_id, parent.on_failure == "fail_fast"))
    if parent_id is not None:
        session.execute(select(Job.id).where(Job.parent_id == parent_id).order_by(Job.id).with_for_update())
