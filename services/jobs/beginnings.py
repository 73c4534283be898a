"""How a job comes into being: submitted, or put in the place of one that failed. And how it is forgotten."""

from collections.abc import Sequence

from sqlalchemy import delete, exists, func, insert, literal, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from services import model_registry, registry
from services.claims import NO_LIMITS, Limits, NewJob
from services.database import Also, Database, nothing, now_ms
from services.errors import Busy, Conflict, NotFound
from services.ids import new_id
from services.jobs.families import begin_if_ready, child_of, lock_with_children, move_on
from services.jobs.rows import note
from services.tables import (
    TERMINAL,
    Artifact,
    Attempt,
    Checkpoint,
    Dependency,
    Job,
    JobLabel,
    LogLine,
    Metric,
    Transition,
    personal,
)
from services.telemetry import tracing


def submit(database: Database, new: NewJob, limits: Limits = NO_LIMITS, also: Also = nothing) -> tuple[str, bool]:
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
            begin_if_ready(session, or_(Job.id == job_id, Job.parent_id == job_id))
            also(session, job_id)
            return job_id, True
    except IntegrityError:
        # Another request with the same key committed between our look and our insert.
        with database.write() as session:
            if (known := _by_key(session, new)) is not None:
                return known, False
        raise


def retry(database: Database, job_id: str, limits: Limits = NO_LIMITS, also: Also = nothing) -> str:
    """Tries a job that failed or was cancelled again, as a new job, whose id is returned; asked again, the same one.

    The new job goes on from the newest checkpoint, which becomes its own. That of a parent takes over the children that
    have succeeded, and tries the others again. A child takes its place among its siblings while they work.

    Raises:
        NotFound: there is no such job.
        Busy: as many jobs wait as may.
        Conflict: it has not failed; its parent has ended, and is to be tried again itself; or it registers a data set.
    """
    with database.write() as session:
        lock_with_children(session, job_id)
        job = session.get_one(Job, job_id)
        if job.superseded_by is not None:
            return job.superseded_by
        if job.state not in ("failed", "cancelled"):
            raise Conflict(f"job {job_id} is {job.state}; only one that failed or was cancelled can be tried again")
        if job.kind in ("register", "import"):
            thing = "data set" if job.kind == "register" else "model"
            raise Conflict(f"{job.kind} the {thing} again: what was wrong with its files may have been mended")
        if job.parent_id is not None:
            parent = session.scalars(select(Job).where(Job.id == job.parent_id).with_for_update()).one()
            if parent.state in TERMINAL or parent.worker is not None or parent.cancel_requested:
                raise Conflict(f"the others have ended; retry {parent.id}, which keeps what has succeeded")
        _refuse_if_busy(session, job.created_by, limits)
        again = _again(session, job, job.parent_id)
        if session.scalar(select(exists().where(child_of(again)))):
            move_on(session, again)
        also(session, again)
        return again


def forget(session: Session, job_ids: Sequence[str]) -> None:
    """Deletes jobs that have ended, with all that was written about them."""
    for table in (Attempt, Transition, Metric, LogLine, Checkpoint, Artifact, JobLabel, Dependency):
        session.execute(delete(table).where(table.job_id.in_(job_ids)))
    session.execute(delete(Dependency).where(Dependency.needs.in_(job_ids)))
    session.execute(delete(Job).where(Job.id.in_(job_ids), Job.state.in_(TERMINAL)))


def _by_key(session: Session, new: NewJob) -> str | None:
    if new.idempotency_key is None:
        return None
    job = session.scalar(
        select(Job).where(Job.created_by == new.created_by, Job.idempotency_key == new.idempotency_key)
    )
    if job is None:
        return None
    after = session.scalars(select(Dependency.needs).where(Dependency.job_id == job.id))
    # What is to be registered or imported has a new id each time; its name tells it.
    is_same = (new.dataset_id, new.model_version_id) == (job.dataset_id, job.model_version_id)
    same_data = is_same if new.registers is None and new.imports is None else new.name == job.name
    asked = new.kind, dict(new.spec), new.time_limit, new.on_failure, set(new.after)
    same_place = (new.project or personal(new.created_by)) == job.project
    if not same_data or not same_place or asked != (job.kind, job.spec, job.time_limit, job.on_failure, set(after)):
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
    if new.model_version_id is not None and new.imports is None:
        model_registry.hold(session, new.model_version_id)
    if new.registers is None and new.dataset_id is not None:
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
    job_id, project = new_id(), new.project or personal(new.created_by)
    if new.imports is not None and new.model_version_id is not None:
        words = new.spec["note"]
        model_registry.begin(session, new.model_version_id, new.imports, project, new.created_by, job_id, words)
    if new.registers is not None and new.dataset_id is not None:
        registry.begin(
            session, new.dataset_id, new.registers, new.spec["source"]["format"], new.created_by, job_id, project
        )
    session.execute(
        insert(Job).values(
            id=job_id,
            project=project,
            kind=new.kind,
            name=new.name,
            state="queued",
            dataset_id=new.dataset_id,
            model_version_id=new.model_version_id,
            spec=dict(new.spec),
            resource_class=new.resource_class,
            weights=new.weights,
            images_at_once=new.images_at_once,
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
    note(session, job_id, 0, "queued", "submitted")
    for number, child in enumerate(new.children):
        _insert(session, child, job_id, number)
    return job_id


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
    note(session, again, 0, "queued", f"tries job {job.id} again")
    for child in session.scalars(select(Job).where(child_of(job.id)).order_by(Job.position)).all():
        if child.state == "succeeded":
            session.execute(update(Job).where(Job.id == child.id).values(parent_id=again))
        else:
            _again(session, child, again)
    begin_if_ready(session, or_(Job.id == again, Job.parent_id == again))
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
    "model_version_id",
    "created_by",
    "project",
    "priority",
    "resource_class",
    "weights",
    "images_at_once",
    "memory_gb",
    "time_limit",
    "on_failure",
    "max_attempts",
    "cloned_from",
)
