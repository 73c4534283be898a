"""`/jobs/<id>` and what belongs to it."""

import logging
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from flask import Blueprint, Response, flash, jsonify, redirect, render_template, request, send_file, url_for
from werkzeug.wrappers import Response as BaseResponse

from services import models, pictures, predictions, steering, views
from services.asking import context, reader, writer
from services.curves import MOST_POINTS, reduced
from services.dashboard.assets import plotly_address
from services.dashboard.charts import Chart, Series, points_each, run_charts, training_charts
from services.dashboard.differences import differences
from services.dashboard.lists import template
from services.dashboard.results import main_figure, results, squares
from services.dashboard.stream import here
from services.downloads import download
from services.errors import NotFound, StorageError
from services.predictions import Ranked
from services.tables import TERMINAL

routes = Blueprint("job", __name__, url_prefix="/jobs/<job_id>")
LOG_LINES = 500  # of one answer
MOST_IMAGES = 200  # of a cell of the confusion matrix
MOST_SMOOTHING = 0.99
SMOOTHED = ("train_loss", "validation_loss", "validation_balanced_accuracy")
DRAWN = (*SMOOTHED, "learning_rate", "loss_weight_ce", "loss_weight_focal")
FOLD_FIGURES = ("validation_balanced_accuracy", "validation_loss")

log = logging.getLogger(__name__)


@routes.get("")
def page(job_id: str) -> str:
    database, principal = context().database, reader()
    place = here(job_id)
    job = steering.show(context(), principal, job_id)
    children = views.list_children(database, principal, job_id)
    artifacts = views.list_artifacts(database, principal, job_id)
    has_ended = job["state"] in TERMINAL
    return render_template(
        template("job"),
        job=job,
        place=place,
        has_ended=has_ended,
        actions=_actions(job),
        parent=views.get_job(database, principal, job["parent"]) if job["parent"] else None,
        folds=[{**child, "figure": main_figure(child["summary"])} for child in children],
        results=results(job["summary"]),
        squares=squares(job["summary"], _rankings(job_id, artifacts) if has_ended else []),
        dataset=views.dataset_of(database, job),
        registered=models.versions_of_job(database, principal, job_id),
        events=views.list_events(database, principal, job_id),
        attempts=views.list_attempts(database, principal, job_id),
        checkpoints=views.list_checkpoints(database, principal, job_id),
        artifacts=artifacts,
        has_answers=any(file["name"] == predictions.FILE for file in artifacts),
        rates=request.args.get("matrix") == "rates",
        lines=views.list_logs(database, principal, job_id, limit=LOG_LINES),
        beside=_beside(job),
        plotly=plotly_address(),
    )


@routes.get("/curves")
def curves(job_id: str) -> Response:
    job = views.get_job(context().database, reader(), job_id)
    smoothing = request.args.get("smoothing", 0.0, type=float)
    return jsonify([asdict(chart) for chart in _charts(job, min(max(smoothing, 0.0), MOST_SMOOTHING))])


@routes.get("/cell")
def images(job_id: str) -> str:
    """The images of one cell of the confusion matrix."""
    job = views.get_job(context().database, reader(), job_id)
    truth, predicted = (request.args.get(name, "") for name in ("truth", "predicted"))
    table = views.get_artifact(context().database, reader(), job_id, predictions.FILE)
    found = predictions.cell(context().store, table, truth, predicted, MOST_IMAGES + 1)
    dataset = views.dataset_of(context().database, job)
    return render_template(
        "cell.html",
        job=job,
        truth=truth,
        predicted=predicted,
        answers=found[:MOST_IMAGES],
        is_cut=len(found) > MOST_IMAGES,
        pictures=_pictures(job_id, {answer.image_id for answer in found}),
        has_images=dataset is not None and pictures.can_be_shown(context().store, dataset),
    )


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


@routes.get("/pictures/<name>")
def picture(job_id: str, name: str) -> Response:
    """A picture of a result, to be shown inside a page: from here, wherever it is stored."""
    row = views.get_artifact(context().database, reader(), job_id, name)
    if row.media_type != "image/png":
        raise NotFound(f"{name!r} is no picture")
    return send_file(context().store.open(row.key), mimetype=row.media_type, etag=row.sha256, conditional=True)


def _charts(job: dict[str, Any], smoothing: float) -> list[Chart]:
    if job["kind"] == "study":
        return []

    def series(job_id: str, weight: float = 0.0, names: Sequence[str] = (), points: int = MOST_POINTS) -> Series:
        return reduced(context().database, reader(), job_id, names, smoothing=weight, points=points)

    if job["kind"] != "cross_validate":
        kept = (job["summary"].get("kept") or {}).get("step")
        smooth = series(job["id"], smoothing, SMOOTHED) if smoothing else None
        return training_charts(series(job["id"], names=DRAWN), kept, smooth)
    # Of a fold that was tried again the last run counts.
    children = views.list_children(context().database, reader(), job["id"])
    last = {fold["position"]: fold["id"] for fold in children}
    points = points_each(len(FOLD_FIGURES) * len(last))
    return run_charts({f"fold {n}": series(id, smoothing, FOLD_FIGURES, points) for n, id in last.items()})


def _rankings(job_id: str, artifacts: list[dict[str, Any]]) -> list[Ranked]:
    if not any(file["name"] == predictions.FILE for file in artifacts):
        return []
    table = views.get_artifact(context().database, reader(), job_id, predictions.FILE)
    try:
        return predictions.rankings(context().store, table)
    except (StorageError, ValueError, KeyError) as error:  # a page without two curves is better than none
        log.warning("job %s: no curves from %s: %s", job_id, predictions.FILE, error)
        return []


def _beside(job: dict[str, Any]) -> dict[str, Any] | None:
    """Another job and the differences of its spec to this one's: the one asked for, else the one it came from."""
    asked = request.args.get("against", "").strip()
    other_id = asked or job["cloned_from"] or job["retry_of"] or job["parent"]
    if not other_id:
        return None
    try:
        other = views.get_job(context().database, reader(), other_id)
    except NotFound:
        return {"other": None, "asked": asked, "differences": []} if asked else None
    fields = differences([{"dataset": j["dataset"], "kind": j["kind"], **j["spec"]} for j in (other, job)])
    return {"other": other, "asked": asked, "differences": fields}


def _pictures(job_id: str, image_ids: set[str]) -> dict[str, list[tuple[str, str]]]:
    """Pictures of images in the results of the jobs that explained this one: (job, artifact) by image id."""
    found: dict[str, list[tuple[str, str]]] = {}
    for explaining, name in views.list_explanations(context().database, reader(), job_id):
        stem = name.removeprefix("explained-").rpartition(".")[0]
        if name.startswith("explained-") and stem in image_ids:
            found.setdefault(stem, []).append((explaining, name))
    return found
