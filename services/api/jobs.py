"""`/api/v1/jobs`."""

from typing import Any

from flask import Response, jsonify, url_for

from services import steering, submission, views
from services.api import answers
from services.api.documentation import FILE, STREAM, Section, documented
from services.api.events import job_stream, wants_stream
from services.api.parsing import (
    CloneBody,
    EventsQuery,
    JobBody,
    JobPatch,
    JobsQuery,
    LogsQuery,
    MetricsQuery,
    idempotency_key,
    parse_body,
    parse_query,
)
from services.asking import context, reader, writer
from services.downloads import download
from services.views import JobFilter

routes = Section(
    "jobs",
    __name__,
    url_prefix="/jobs",
    tags={
        "jobs": "Trainings, cross-validations, studies, predictions, evaluations, explanations: from submission to "
        "files"
    },
    paths={"job_id": ("id of a job", answers.ID), "name": ("its name", "report.html")},
)


def _items(items: list[dict[str, Any]], next_cursor: str | None = None) -> Response:
    return jsonify({"items": items, "next_cursor": next_cursor})


@routes.post("")
@documented(
    {201: answers.SubmittedJob, 200: (answers.SubmittedJob, answers.CheckedJob)},
    body=JobBody,
    headers=["Idempotency-Key"],
    problems=[409, 429],
)
def post_job() -> Response | tuple[Response, int, dict[str, str]]:
    """Submit a job.

    The whole request is checked before anything is stored. 200: the `Idempotency-Key` was used for this very request
    before, and this is the job that it made; or `validate_only` was asked for.
    """
    principal, body = writer(), parse_body(JobBody)
    request = submission.Request(**body.model_dump(exclude={"validate_only"}), idempotency_key=idempotency_key())
    if body.validate_only:
        return jsonify(submission.check(context(), principal, request))
    return _made(*submission.submit(context(), principal, request))


def _made(job: dict[str, Any], created: bool) -> tuple[Response, int, dict[str, str]]:
    return jsonify(job), 201 if created else 200, {"Location": url_for("api.jobs.get_job", job_id=job["id"])}


@routes.get("")
@documented({200: answers.Page[answers.ListedJob]}, query=JobsQuery)
def get_jobs() -> Response:
    """List jobs, newest first, without those that have a parent."""
    query = parse_query(JobsQuery)
    wanted = JobFilter(**query.model_dump(exclude={"cursor", "limit"}))
    page = views.list_jobs_as_text(context().database, reader(), wanted, query.cursor, query.limit)
    return Response(page, mimetype="application/json")


@routes.get("/<job_id>")
@documented({200: answers.Job, 304: None}, headers=["If-None-Match"])
def get_job(job_id: str) -> Response:
    """Show a job."""
    return jsonify(steering.show(context(), reader(), job_id))


@routes.patch("/<job_id>")
@documented({200: answers.Job}, body=JobPatch, problems=[409])
def patch_job(job_id: str) -> Response:
    """Give a job that waits another priority."""
    return jsonify(steering.set_priority(context(), writer(), job_id, parse_body(JobPatch).priority))


@routes.post("/<job_id>/cancel")
@documented({200: answers.Job})
def post_cancel(job_id: str) -> Response:
    """Cancel a job and its children; a running one ends at its next step."""
    return jsonify(steering.cancel(context(), writer(), job_id))


@routes.post("/<job_id>/pause")
@documented({200: answers.Job}, problems=[409])
def post_pause(job_id: str) -> Response:
    """Pause a job; a running one writes a checkpoint first."""
    return jsonify(steering.pause(context(), writer(), job_id))


@routes.post("/<job_id>/resume")
@documented({200: answers.Job}, problems=[409])
def post_resume(job_id: str) -> Response:
    """Let a paused job go on."""
    return jsonify(steering.resume(context(), writer(), job_id))


@routes.post("/<job_id>/retry")
@documented({201: answers.Job, 200: answers.Job}, problems=[409, 429])
def post_retry(job_id: str) -> tuple[Response, int, dict[str, str]]:
    """Try a failed or cancelled job again, from its last checkpoint and with its finished children.

    200: it was tried again before, and this is the job that does.
    """
    return _made(*steering.retry(context(), writer(), job_id))


@routes.post("/<job_id>/clone")
@documented(
    {201: answers.SubmittedJob, 200: (answers.SubmittedJob, answers.CheckedJob)},
    body=CloneBody,
    headers=["Idempotency-Key"],
    problems=[409, 429],
)
def post_clone(job_id: str) -> Response | tuple[Response, int, dict[str, str]]:
    """Submit a job like another one, but for some changes.

    200: as for `POST jobs`.
    """
    principal, changes = writer(), parse_body(CloneBody).model_dump(exclude_unset=True)
    if changes.pop("validate_only", False):
        return jsonify(submission.check(context(), principal, steering.as_clone(context(), principal, job_id, changes)))
    return _made(*steering.clone(context(), principal, job_id, changes, idempotency_key()))


@routes.get("/<job_id>/metrics")
@documented({200: answers.Page[answers.Series], 304: None}, query=MetricsQuery, headers=["If-None-Match"])
def get_metrics(job_id: str) -> Response:
    """List a job's figures, each in the order of steps."""
    series = views.list_metrics(context().database, reader(), job_id, parse_query(MetricsQuery).name)
    return _items([{"name": name, "points": points} for name, points in series.items()])


@routes.get("/<job_id>/logs")
@documented({200: answers.Page[answers.LogLine]}, query=LogsQuery)
def get_logs(job_id: str) -> Response:
    """List lines of a job's log, oldest first.

    `next_cursor` is the `after` of the next request.
    """
    query = parse_query(LogsQuery)
    lines = views.list_logs(context().database, reader(), job_id, query.after, query.limit)
    return _items(lines, str(lines[-1]["id"]) if len(lines) == query.limit else None)


@routes.get("/<job_id>/events")
@documented(
    {200: (answers.Page[answers.Event], STREAM), 204: None},
    query=EventsQuery,
    headers=["Last-Event-ID"],
    problems=[429, 503],
)
def get_events(job_id: str) -> Response:
    """List what happened to a job, oldest first.

    With `Accept: text/event-stream` it is a stream of states, progress, figures, log lines and children as they come,
    until the job's end; every event has an id from which another request goes on (`Last-Event-ID`), 204 where the end
    was told already. Events are `state`, `started`, `metrics`, `log`, `progress`, `child` and `end`.
    """
    topics = parse_query(EventsQuery).topic
    if wants_stream():
        return job_stream(job_id, topics)
    return _items(views.list_events(context().database, reader(), job_id))


@routes.get("/<job_id>/attempts")
@documented({200: answers.Page[answers.Attempt], 304: None}, headers=["If-None-Match"])
def get_attempts(job_id: str) -> Response:
    """List the attempts of a job, oldest first."""
    return _items(views.list_attempts(context().database, reader(), job_id))


@routes.get("/<job_id>/children")
@documented({200: answers.Page[answers.ListedJob], 304: None}, headers=["If-None-Match"])
def get_children(job_id: str) -> Response:
    """List a job's folds, cells or shards, in their order."""
    return _items(views.list_children(context().database, reader(), job_id))


@routes.get("/<job_id>/checkpoints")
@documented({200: answers.Page[answers.Checkpoint], 304: None}, headers=["If-None-Match"])
def get_checkpoints(job_id: str) -> Response:
    """List a job's checkpoints, oldest first."""
    return _items(views.list_checkpoints(context().database, reader(), job_id))


@routes.get("/<job_id>/artifacts")
@documented({200: answers.Page[answers.Artifact], 304: None}, headers=["If-None-Match"])
def get_artifacts(job_id: str) -> Response:
    """List the files of a job's result, by name."""
    return _items(views.list_artifacts(context().database, reader(), job_id))


@routes.get("/<job_id>/artifacts/<name>")
@documented(
    {200: FILE, 206: FILE, 302: None, 304: None},
    headers=["If-None-Match", "If-Range", "Range"],
    problems=[416, 503],
)
def get_artifact(job_id: str, name: str) -> Response:
    """Download a file of a job's result.

    The file, or a redirect to where it is stored. Its `ETag` is its SHA-256.
    """
    return download(context(), reader(), job_id, name)
