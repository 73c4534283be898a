"""`/jobs/<id>` and what belongs to it."""

from dataclasses import asdict
from typing import Any

from flask import Blueprint, Response, flash, jsonify, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as BaseResponse

from services import steering, views
from services.dashboard.access import context, reader, writer
from services.dashboard.assets import plotly_address
from services.dashboard.charts import Chart, fold_charts, training_charts
from services.dashboard.lists import template
from services.dashboard.results import main_figure, results
from services.downloads import download
from services.tables import TERMINAL

routes = Blueprint("job", __name__, url_prefix="/jobs/<job_id>")
LOG_LINES = 500  # of one answer


@routes.get("")
def page(job_id: str) -> str:
    database, principal = context().database, reader()
    job = steering.show(context(), principal, job_id)
    children = views.list_children(database, principal, job_id)
    return render_template(
        template("job"),
        job=job,
        has_ended=job["state"] in TERMINAL,
        actions=_actions(job),
        parent=views.get_job(database, principal, job["parent"]) if job["parent"] else None,
        folds=[{**child, "figure": main_figure(child["summary"])} for child in children],
        results=results(job["summary"]),
        dataset=views.dataset_of(database, job),
        events=views.list_events(database, principal, job_id),
        attempts=views.list_attempts(database, principal, job_id),
        artifacts=views.list_artifacts(database, principal, job_id),
        lines=views.list_logs(database, principal, job_id, limit=LOG_LINES),
        plotly=plotly_address(),
    )


@routes.get("/curves")
def curves(job_id: str) -> Response:
    job = views.get_job(context().database, reader(), job_id)
    return jsonify([asdict(chart) for chart in _charts(job)])


@routes.get("/logs")
def logs(job_id: str) -> str:
    after = request.args.get("after", 0, type=int)
    lines = views.list_logs(context().database, reader(), job_id, after=min(max(after, 0), 2**63 - 1), limit=LOG_LINES)
    return render_template("live/logs.html", lines=lines)


@routes.post("/cancel")
def cancel(job_id: str) -> BaseResponse:
    job = steering.cancel(context(), writer(), job_id)
    return _back(job, "" if job["state"] in TERMINAL else "Asked to cancel: the run ends at its next step.")


@routes.post("/pause")
def pause(job_id: str) -> BaseResponse:
    job = steering.pause(context(), writer(), job_id)
    return _back(job, "" if job["state"] == "paused" else "Asked to pause: the run stops after its next checkpoint.")


@routes.post("/resume")
def resume(job_id: str) -> BaseResponse:
    return _back(steering.resume(context(), writer(), job_id))


@routes.post("/retry")
def retry(job_id: str) -> BaseResponse:
    job, _ = steering.retry(context(), writer(), job_id)
    return _back(job, "This job tries it again.")


def _actions(job: dict[str, Any]) -> list[str]:
    """What can be done with a job as it is."""
    if job["state"] in ("failed", "cancelled"):
        return ["retry"] if job["kind"] not in ("register", "import") and job["superseded_by"] is None else []
    return {"queued": ["pause", "cancel"], "running": ["pause", "cancel"], "paused": ["resume", "cancel"]}.get(
        job["state"], []
    )


def _back(job: dict[str, Any], said: str = "") -> BaseResponse:
    if said:
        flash(said)
    return redirect(url_for("dashboard.job.page", job_id=job["id"]), code=303)


@routes.get("/artifacts/<name>")
def artifact(job_id: str, name: str) -> Response:
    return download(context(), reader(), job_id, name)


def _charts(job: dict[str, Any]) -> list[Chart]:
    database, principal = context().database, reader()
    if job["kind"] == "study":
        return []
    if job["kind"] != "cross_validate":
        kept = (job["summary"].get("kept") or {}).get("step")
        return training_charts(views.list_metrics(database, principal, job["id"]), kept)
    wanted = ("validation_balanced_accuracy", "validation_loss")
    # Of a fold that was tried again the last run counts.
    last = {fold["position"]: fold["id"] for fold in views.list_children(database, principal, job["id"])}
    return fold_charts({f"fold {n}": views.list_metrics(database, principal, id, wanted) for n, id in last.items()})
