"""`/api/v1/jobs`."""

from typing import Any

from flask import Blueprint, Response, jsonify, url_for

from services import steering, submission, views
from services.api.access import context, reader, writer
from services.api.events import job_stream, wants_stream
from services.api.parsing import (
    CloneBody,
    JobBody,
    JobPatch,
    JobsQuery,
    LogsQuery,
    MetricsQuery,
    idempotency_key,
    parse_body,
    parse_query,
)
from services.downloads import artifact_response
from services.views import JobFilter

routes = Blueprint("jobs", __name__, url_prefix="/jobs")


def _items(items: list[dict[str, Any]], next_cursor: str | None = None) -> Response:
    return jsonify({"items": items, "next_cursor": next_cursor})


@routes.post("")
def post_job() -> tuple[Response, int, dict[str, str]]:
    principal, body = writer(), parse_body(JobBody)
    request = submission.Request(**body.model_dump(), idempotency_key=idempotency_key())
    return _made(*submission.submit(context(), principal, request))


def _made(job: dict[str, Any], created: bool) -> tuple[Response, int, dict[str, str]]:
    return jsonify(job), 201 if created else 200, {"Location": url_for("api.jobs.get_job", job_id=job["id"])}


@routes.get("")
def get_jobs() -> Response:
    query = parse_query(JobsQuery)
    wanted = JobFilter(state=query.state, kind=query.kind, dataset=query.dataset, q=query.q)
    page = views.list_jobs(context().database, reader(), wanted, query.cursor, query.limit)
    return _items(page.items, page.next_cursor)


@routes.get("/<job_id>")
def get_job(job_id: str) -> Response:
    return jsonify(steering.show(context(), reader(), job_id))


@routes.patch("/<job_id>")
def patch_job(job_id: str) -> Response:
    return jsonify(steering.set_priority(context(), writer(), job_id, parse_body(JobPatch).priority))


@routes.post("/<job_id>/cancel")
def post_cancel(job_id: str) -> Response:
    return jsonify(steering.cancel(context(), writer(), job_id))


@routes.post("/<job_id>/pause")
def post_pause(job_id: str) -> Response:
    return jsonify(steering.pause(context(), writer(), job_id))


@routes.post("/<job_id>/resume")
def post_resume(job_id: str) -> Response:
    return jsonify(steering.resume(context(), writer(), job_id))


@routes.post("/<job_id>/retry")
def post_retry(job_id: str) -> tuple[Response, int, dict[str, str]]:
    return _made(*steering.retry(context(), writer(), job_id))


@routes.post("/<job_id>/clone")
def post_clone(job_id: str) -> tuple[Response, int, dict[str, str]]:
    principal, changes = writer(), parse_body(CloneBody).model_dump(exclude_unset=True)
    return _made(*steering.clone(context(), principal, job_id, changes, idempotency_key()))


@routes.get("/<job_id>/metrics")
def get_metrics(job_id: str) -> Response:
    series = views.list_metrics(context().database, reader(), job_id, parse_query(MetricsQuery).name)
    return _items([{"name": name, "points": points} for name, points in series.items()])


@routes.get("/<job_id>/logs")
def get_logs(job_id: str) -> Response:
    query = parse_query(LogsQuery)
    lines = views.list_logs(context().database, reader(), job_id, query.after, query.limit)
    return _items(lines, str(lines[-1]["id"]) if len(lines) == query.limit else None)


@routes.get("/<job_id>/events")
def get_events(job_id: str) -> Response:
    if wants_stream():
        return job_stream(job_id)
    return _items(views.list_events(context().database, reader(), job_id))


@routes.get("/<job_id>/attempts")
def get_attempts(job_id: str) -> Response:
    return _items(views.list_attempts(context().database, reader(), job_id))


@routes.get("/<job_id>/children")
def get_children(job_id: str) -> Response:
    return _items(views.list_children(context().database, reader(), job_id))


@routes.get("/<job_id>/checkpoints")
def get_checkpoints(job_id: str) -> Response:
    return _items(views.list_checkpoints(context().database, reader(), job_id))


@routes.get("/<job_id>/artifacts")
def get_artifacts(job_id: str) -> Response:
    return _items(views.list_artifacts(context().database, reader(), job_id))


@routes.get("/<job_id>/artifacts/<name>")
def get_artifact(job_id: str, name: str) -> Response:
    return artifact_response(context().store, views.get_artifact(context().database, reader(), job_id, name))
