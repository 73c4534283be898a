"""What people do with a job that is there: cancel, pause, resume, move, try again, clone. API and dashboard call it.

Whatever is not yours does not exist here either: every function raises NotFound for it, and Forbidden for what you
only see, as a viewer of its project.
"""

from collections.abc import Mapping
from typing import Any

from services import forecast, jobs, projects, queue, submission, views
from services.audit import Act, noted
from services.context import Context
from services.database import Also
from services.errors import Conflict
from services.submission import Request
from services.tokens import Principal


def show(context: Context, principal: Principal, job_id: str) -> dict[str, Any]:
    """The job as people see it, and while it waits, `queue`: its place, when it may start, and what it waits for."""
    job = views.get_job(context.database, principal, job_id)
    if job["state"] not in forecast.WAITING:
        return {**job, "queue": None}
    return {**job, "queue": forecast.look_ahead(context.database, job_id, context.settings.running_per_user)}


def cancel(context: Context, principal: Principal, job_id: str) -> dict[str, Any]:
    """See `jobs.cancel`."""
    jobs.cancel(context.database, job_id, _noted(context, principal, job_id, "job.cancel"))
    return show(context, principal, job_id)


def pause(context: Context, principal: Principal, job_id: str) -> dict[str, Any]:
    """See `jobs.pause`. Raises Conflict."""
    jobs.pause(context.database, job_id, _noted(context, principal, job_id, "job.pause"))
    return show(context, principal, job_id)


def resume(context: Context, principal: Principal, job_id: str) -> dict[str, Any]:
    """See `jobs.resume`. Raises Conflict."""
    jobs.resume(context.database, job_id, _noted(context, principal, job_id, "job.resume"))
    return _woken(context, principal, job_id)


def set_priority(context: Context, principal: Principal, job_id: str, priority: int) -> dict[str, Any]:
    """See `jobs.set_priority`. Raises Conflict."""
    noting = _noted(context, principal, job_id, "job.set_priority", priority=priority)
    jobs.set_priority(context.database, job_id, priority, noting)
    return show(context, principal, job_id)


def retry(context: Context, principal: Principal, job_id: str) -> tuple[dict[str, Any], bool]:
    """See `jobs.retry`. Returns the job that tries it again, and whether it is new. Raises Conflict or Busy."""
    noting = _noted(context, principal, job_id, "job.retry", tries_again=job_id)
    was_tried = views.get_job(context.database, principal, job_id)["superseded_by"] is not None
    again = jobs.retry(context.database, job_id, submission.limits(context), noting)
    return _woken(context, principal, again), not was_tried


def clone(
    context: Context, principal: Principal, job_id: str, changes: Mapping[str, Any], idempotency_key: str | None = None
) -> tuple[dict[str, Any], bool]:
    """Submits a job like another one, but for some changes: fields of a request, and of its spec field by field.

    Returns the new job, and whether it is new (see `idempotency_key`).

    Raises:
        InvalidInput: with every problem, as for any submission.
        Conflict: it registers a data set.
        Busy: as many jobs wait as may.
    """
    return submission.submit(context, principal, as_clone(context, principal, job_id, changes, idempotency_key))


def as_clone(
    context: Context, principal: Principal, job_id: str, changes: Mapping[str, Any], idempotency_key: str | None = None
) -> Request:
    """What `clone` submits. Raises Conflict."""
    job = views.get_job(context.database, principal, job_id)
    if job["dataset_id"] is None:
        raise Conflict(f"an {job['kind']} can't be cloned; ask for it again")
    if job["kind"] == "register":
        raise Conflict("a registration can't be cloned; register the data set under another name")
    values = {name: job[name] for name in ("kind", "priority", "time_limit")}
    values |= {"dataset": job["dataset_id"], "on_failure": job["on_failure"] or "finish_rest"}
    given = submission.name_of(job["kind"], job["spec"]["model"], job["dataset"])
    values["project"] = _project_of_clone(context, principal, job["project"])
    values["name"] = job["name"] if job["name"] != given else None  # then it is named anew for what it does
    values |= {name: value for name, value in changes.items() if name != "spec"}
    spec = _merged(job["spec"], changes.get("spec") or {})
    return Request(**values, spec=spec, cloned_from=job_id, idempotency_key=idempotency_key)


def _project_of_clone(context: Context, principal: Principal, project: str) -> str | None:
    """Where the other job is, if one may submit there and it is nobody else's own."""
    role = projects.role_in(context.database, principal, project)
    return project if role in ("researcher", "admin") and not project.startswith("~") else None


def _noted(context: Context, principal: Principal, job_id: str, action: str, **detail: Any) -> Also:
    """What writes into the audit trail that somebody steers a job. Raises NotFound, Forbidden where they may not."""
    project = views.get_job(context.database, principal, job_id)["project"]
    projects.require(context.database, principal, project, "researcher")
    return noted(context.database, Act(principal, action, project=project, detail=detail))


def _merged(old: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(old)
    for name, value in changes.items():
        inner = merged.get(name)
        if isinstance(inner, dict) and isinstance(value, dict):
            # Another model or loss comes as a whole: the options of one mean nothing to another.
            is_another = name in ("model", "loss") and value.get("name", inner.get("name")) != inner.get("name")
            value = value if is_another else _merged(inner, value)
        merged[name] = value
    return merged


def _woken(context: Context, principal: Principal, job_id: str) -> dict[str, Any]:
    """The job as shown, workers having been told that there is work."""
    job = show(context, principal, job_id)
    waiting = 1 if job["children"] is None else max(1, job["children"]["queued"])
    queue.publish(context.celery, job["spec"]["resources"]["device"], messages=waiting)
    return job
