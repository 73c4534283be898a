"""Jobs that models come from and go out by: importing one, and writing one as ONNX."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from bgpanet.errors import InvalidInput, Problem
from bgpanet.specs import ExportSpec, ImportSpec
from services import jobs, models, projects, queue, submission, uploads, views
from services.audit import Act
from services.claims import NewJob
from services.context import Context
from services.database import Database
from services.errors import Forbidden, NotFound
from services.ids import new_id
from services.tables import Job, ModelVersion, personal
from services.tokens import Principal

PRIORITY = 100  # a minute of work for which somebody waits
TOLD_EXPORTS = 5


@dataclass(frozen=True)
class Coming:
    """An uploaded model that is to be kept under a name."""

    name: str
    upload: str
    note: str | None = None
    project: str | None = None
    idempotency_key: str | None = None


def import_model(context: Context, principal: Principal, coming: Coming) -> tuple[dict[str, Any], bool]:
    """Queues the job that checks an uploaded model; its version is `importing` until then.

    Returns the version, and whether it is new. The same idempotency key gives the one that it gave before.

    Raises:
        InvalidInput: with every problem of the request; those of the files are told by the version.
        Conflict: the idempotency key was used for another request.
        Busy: as many jobs wait as may.
    """
    problems, project, called = models.name_problems(coming.name), "", ""
    try:
        project = projects.chosen(context.database, principal, coming.project)
    except (NotFound, Forbidden) as error:
        problems.append(Problem("project", str(error)))
    try:
        upload = uploads.find(context, principal, coming.upload)
        called = upload.name
        if upload.state != "complete":
            problems.append(Problem("upload", f"is {upload.state}; send its parts and complete it"))
    except NotFound as error:
        problems.append(Problem("upload", str(error)))
    if problems:
        raise InvalidInput(problems)
    new = NewJob(
        kind="import",
        name=f"import {coming.name}",
        spec=ImportSpec(source=coming.upload, name=called, note=coming.note).model_dump(mode="json"),
        dataset_id=None,
        created_by=principal.user,
        project=project,
        idempotency_key=coming.idempotency_key,
        imports=coming.name,
        model_version_id=new_id(),
        priority=PRIORITY,
        max_attempts=context.settings.max_attempts,
    )
    detail = {"name": coming.name, "upload": coming.upload}
    act = Act(principal, "model.import", str(new.model_version_id), project, detail)
    noted = projects.noted_in(context.database, act)
    job_id, created = jobs.submit(context.database, new, submission.limits(context), noted)
    if created:
        queue.publish(context.celery, new.resource_class)
    with context.database.read() as session:
        version_id = session.scalars(select(ModelVersion.id).where(ModelVersion.job_id == job_id)).one()
    return models.get_version(context.database, principal, version_id), created


def list_exports(database: Database, principal: Principal, version_id: str) -> list[dict[str, Any]]:
    """Jobs that wrote, or are to write, a version as ONNX, as far as one sees them; the newest first."""
    query = select(Job.id).where(Job.kind == "export", Job.model_version_id == version_id)
    query = query.where(projects.visible(principal, Job.project)).order_by(Job.id.desc())
    with database.read() as session:
        ids = session.scalars(query.limit(TOLD_EXPORTS)).all()
    return [views.get_job(database, principal, job_id) for job_id in ids]


def export_onnx(context: Context, principal: Principal, reference: str, bound: float) -> dict[str, Any]:
    """Queues the job that writes a version as ONNX and compares its answers. Returns the job.

    Raises:
        NotFound, Conflict: there is no such version that could be used.
        Busy: as many jobs wait as may.
    """
    chosen, project = models.choose(context.database, principal, reference), personal(principal.user)
    new = NewJob(
        kind="export",
        name=f"export {chosen.name} as ONNX",
        spec=ExportSpec(model=chosen.name, bound=bound).model_dump(mode="json"),
        dataset_id=None,
        created_by=principal.user,
        project=project,
        model_version_id=chosen.id,
        priority=PRIORITY,
        max_attempts=context.settings.max_attempts,
    )
    act = Act(principal, "model.export", chosen.id, project, {"model": chosen.name})
    noted = projects.noted_in(context.database, act)
    job_id, _ = jobs.submit(context.database, new, submission.limits(context), noted)
    queue.publish(context.celery, new.resource_class)
    return views.get_job(context.database, principal, job_id)
