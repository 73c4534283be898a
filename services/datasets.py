"""Registering and removing data sets, as people ask for it. The work is a job's; `services.registry` holds states."""

import re
import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from bgpanet.data.readers import READERS
from bgpanet.errors import InvalidInput, Problem
from bgpanet.registration import CHECKS
from bgpanet.specs import LockSpec, RegisterSpec, parse_spec
from bgpanet.validation import unknown
from services import jobs, projects, queue, registry, sources, uploads
from services.artifacts import ArtifactStore
from services.audit import Act
from services.claims import Limits, NewJob
from services.context import Context
from services.database import Also, Database, nothing
from services.errors import Conflict, Forbidden, NotFound
from services.ids import new_id
from services.tables import TERMINAL, Artifact, Dataset, Job
from services.tokens import Principal

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
TOLD_JOBS = 20  # of those that are in the way, by id
LOOK_SECONDS = 0.1
PRIORITY = 100  # minutes of work for which others wait


@dataclass(frozen=True)
class Registration:
    """What a person asks for. Exactly one of folder, s3 and upload says where the files are."""

    name: str
    format: str
    project: str | None = None
    folder: str | None = None
    s3: str | None = None
    upload: str | None = None
    licence: str | None = None
    citation: str | None = None
    locked: LockSpec | None = None
    idempotency_key: str | None = None


def register(context: Context, principal: Principal, asked: Registration) -> tuple[str, bool]:
    """Makes the data set's row, `registering`, and queues the job that reads, checks and packs it.

    Returns the row's id, and whether it is new. The same idempotency key gives the one that it gave before.

    Raises:
        InvalidInput: with every problem of the request; those of the data are told by the job.
        Conflict: the idempotency key was used for another request.
    """
    spec, project = _checked(context, principal, asked)
    dataset_id = new_id()
    new = NewJob(
        kind="register",
        name=f"register {asked.name}",
        spec=spec.model_dump(mode="json"),
        dataset_id=dataset_id,
        created_by=principal.user,
        project=project,
        idempotency_key=asked.idempotency_key,
        registers=asked.name,
        priority=PRIORITY,
        max_attempts=context.settings.max_attempts,
    )
    limits = Limits(context.settings.queued_per_user, context.settings.queued)
    detail = {
        "name": asked.name,
        "format": asked.format,
        "folder": asked.folder,
        "s3": asked.s3,
        "upload": asked.upload,
    }
    act = Act(principal, "dataset.register", dataset_id, project, detail)
    job_id, created = jobs.submit(context.database, new, limits, projects.noted_in(context.database, act))
    if created:
        if asked.upload is not None:
            uploads.used(context.database, asked.upload, dataset_id)
        queue.publish(context.celery, new.resource_class)
        return dataset_id, True
    with context.database.read() as session:
        return str(session.scalars(select(Job.dataset_id).where(Job.id == job_id)).one()), False


def _checked(context: Context, principal: Principal, asked: Registration) -> tuple[RegisterSpec, str]:
    """What the job does, and the project that the data set is in."""
    problems, project = [], ""
    try:
        project = projects.chosen(context.database, principal, asked.project)
    except (NotFound, Forbidden) as error:
        problems.append(Problem("project", str(error)))
    if not NAME.fullmatch(asked.name):
        problems.append(Problem("name", "must be 1 to 100 letters, digits, dots, dashes or underscores"))
    if asked.format not in READERS:
        problems.append(Problem("format", unknown("format", asked.format, [*READERS])))
    if asked.folder is not None and not asked.folder.startswith("/"):
        problems.append(Problem("path", "must begin at the root of the worker's file system: /…"))
    if asked.s3 is not None:
        problems += sources.problems(context.settings, asked.s3)
    if asked.upload is not None:
        problems += _upload_problems(context, principal, asked.upload)
    places = {"folder": asked.folder, "s3": asked.s3, "upload": asked.upload}
    source = {"format": asked.format, **places}
    values: dict[str, Any] = {"source": source, "licence": asked.licence, "citation": asked.citation}
    if asked.locked is not None:
        values["locked"] = asked.locked.model_dump(mode="json")
    try:
        spec = parse_spec("register", values)
    except InvalidInput as error:
        raise InvalidInput([*problems, *error.problems]) from None
    if problems or not isinstance(spec, RegisterSpec):
        raise InvalidInput(problems)
    return spec, project


def _upload_problems(context: Context, principal: Principal, upload_id: str) -> list[Problem]:
    try:
        state = uploads.find(context, principal, upload_id).state
    except NotFound as error:
        return [Problem("source.upload", str(error))]
    return [] if state == "complete" else [Problem("source.upload", f"is {state}; send its parts and complete it")]


def wait(database: Database, dataset_id: str, seconds: float) -> None:
    """Returns when the data set is no longer being registered, or after so many seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with database.read() as session:
            state = session.scalar(select(Dataset.state).where(Dataset.id == dataset_id))
        if state != "registering":
            return
        time.sleep(LOOK_SECONDS)


def remove(database: Database, store: ArtifactStore, dataset_id: str, user: str, also: Also = nothing) -> None:
    """Deletes a data set's files. Its row stays, as `removed`, where jobs used it; else all of it disappears.

    A removal that failed half-way may be repeated.

    Raises:
        NotFound: there is none, or it was removed before.
        Conflict: jobs wait for it or run on it; their ids are told.
        StorageError: the store failed; some files are still there.
    """
    with database.write() as session:
        row = session.scalar(select(Dataset).where(Dataset.id == dataset_id).with_for_update())
        if row is None or (row.state == "removed" and not row.files):
            raise NotFound(f"there is no data set {dataset_id} that could be removed")
        _refuse_if_used(session, row)
        registry.remove(session, row.id, user)
        is_used = session.scalar(select(Job.id).where(Job.dataset_id == row.id, Job.kind != "register").limit(1))
        versions = select(Dataset.id).where((Dataset.id == row.id) | (Dataset.same_as == row.id))
        registering = session.scalars(select(Job.id).where(Job.dataset_id.in_(versions), Job.kind == "register")).all()
        written = select(Artifact.key).where(Artifact.job_id.in_(registering))
        if is_used:
            written = written.where(Artifact.name != CHECKS)
        keys = _own_keys(session, row) | (set(session.scalars(written)) - _shared_keys(session, row))
        also(session, row.id)
    for key in sorted(keys):
        store.delete(key)
    with database.write() as session:
        if is_used:
            session.execute(delete(Artifact).where(Artifact.key.in_(keys)))
            registry.forget_files(session, dataset_id)
        else:
            jobs.forget(session, registering)
            registry.forget(session, dataset_id)


def _refuse_if_used(session: Session, row: Dataset) -> None:
    active = select(Job.id).where(Job.dataset_id == row.id, Job.state.not_in(TERMINAL), Job.parent_id.is_(None))
    ids = session.scalars(active.order_by(Job.id)).all()
    if ids:
        more = f" and {len(ids) - TOLD_JOBS} more" if len(ids) > TOLD_JOBS else ""
        told = f"{', '.join(ids[:TOLD_JOBS])}{more}"
        raise Conflict(f"data set {row.name!r} is in use by {told}; wait until they have ended, or cancel them")


def _own_keys(session: Session, row: Dataset) -> set[str]:
    return {str(file["key"]) for file in row.files.values()} - _shared_keys(session, row)


def _shared_keys(session: Session, row: Dataset) -> set[str]:
    """Keys of files that other data sets of the same content name, too."""
    others = session.scalars(select(Dataset.files).where(Dataset.digest == row.digest, Dataset.id != row.id))
    return {str(file["key"]) for files in others for file in files.values()}


def may_remove(database: Database, principal: Principal, row: Dataset) -> bool:
    """Whoever registered it, and admins of its project."""
    is_mine = principal.user == row.created_by or projects.role_in(database, principal, row.project) == "admin"
    return principal.may_write and is_mine
