"""`/compare`: 2 to 20 jobs beside each other: figures, curves, specs, paired tests; and the same as a file."""

from dataclasses import asdict
from typing import Any

from flask import Blueprint, Response, abort, jsonify, render_template, request

from bgpanet.errors import InvalidInput
from services import comparison, views
from services.asking import context, reader
from services.curves import reduced
from services.dashboard.assets import plotly_address
from services.dashboard.charts import points_each, run_charts
from services.dashboard.differences import differences
from services.dashboard.results import main_figure, results
from services.dashboard.tables import FORMATS, Row, written
from services.errors import NotFound, ServiceError

routes = Blueprint("compare", __name__, url_prefix="/compare")
LEAST, MOST = 2, 20
CURVES = ("validation_balanced_accuracy", "validation_loss")


@routes.get("")
def page() -> str:
    jobs, missing = _asked()
    tests, why = _tests(jobs) if len(jobs) >= LEAST else ([], [])
    return render_template(
        "compare.html",
        jobs=[{**job, "figure": main_figure(job["summary"])} for job in jobs],
        missing=missing,
        few=len(jobs) < LEAST,
        rows=_figures(jobs),
        differences=differences([{"dataset": job["dataset"], "kind": job["kind"], **job["spec"]} for job in jobs]),
        tests=tests,
        why=why,
        asked_tests="tests" in request.args,
        formats=list(FORMATS),
        ids=[job["id"] for job in jobs],
        plotly=plotly_address(),
    )


@routes.get("/curves")
def curves() -> Response:
    jobs, _ = _asked()
    names = _names(jobs)
    points = points_each(len(CURVES) * len(jobs))
    series = {
        names[job["id"]]: reduced(context().database, reader(), job["id"], CURVES, points=points)
        for job in jobs
        if job["children"] is None
    }
    return jsonify([asdict(chart) for chart in run_charts(series, "job")])


@routes.get("/figures.<kind>")
def export(kind: str) -> Response:
    if kind not in FORMATS:
        abort(404, f"there is no such file; known: {', '.join(FORMATS)}")
    jobs, _ = _asked()
    header = ["Figure", *(_names(jobs)[job["id"]] for job in jobs)]
    response = Response(written(kind, header, _figures(jobs)), mimetype=FORMATS[kind])
    response.headers["Content-Disposition"] = f'attachment; filename="comparison.{kind}"'
    return response


def _asked() -> tuple[list[dict[str, Any]], list[str]]:
    """The jobs that the address names, and the ids of those that there are not."""
    found, missing = [], []
    ids = [part.strip() for text in request.args.getlist("job") for part in text.split(",")]
    for job_id in dict.fromkeys(filter(None, ids)):
        try:
            found.append(views.get_job(context().database, reader(), job_id))
        except NotFound:
            missing.append(job_id)
    if len(found) > MOST:
        abort(400, f"at most {MOST} jobs can be compared at once; {len(found)} were named")
    return found, missing


def _names(jobs: list[dict[str, Any]]) -> dict[str, str]:
    """Names by id that tell jobs apart: of those that share one, with the beginning of their ids."""
    names = [job["name"] for job in jobs]
    return {
        job["id"]: job["name"] if names.count(job["name"]) == 1 else f"{job['name']} ({job['id'][-6:]})" for job in jobs
    }


def _figures(jobs: list[dict[str, Any]]) -> list[Row]:
    """A row for each figure that at least one job has."""
    read = [results(job["summary"]) for job in jobs]
    rows: list[Row] = []
    for label in dict.fromkeys(figure.label for one in read for figure in one.main):
        cells = [next((f for f in one.main if f.label == label), None) for one in read]
        rows.append(Row(label, [None if f is None else (f.value, f.bounds) for f in cells]))
        constant = [None if f is None or f.constant is None else (f.constant, None) for f in cells]
        if any(constant):
            rows.append(Row(f"{label}, constant predictor", constant, is_baseline=True))
    for label in dict.fromkeys(name for one in read for name, _, _ in one.others):
        values = [next((value for name, value, _ in one.others if name == label), None) for one in read]
        rows.append(Row(label, [None if value is None else (value, None) for value in values]))
    return rows


def _tests(jobs: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[str]]:
    """Each later job against the first, or why that can't be. Only where they were asked for: they take seconds."""
    names, why = _names(jobs), comparison.obstacles(jobs)
    for job_id, name in names.items():
        why = [
            one.replace(f"job {job_id}", f"\N{LEFT DOUBLE QUOTATION MARK}{name}\N{RIGHT DOUBLE QUOTATION MARK}")
            for one in why
        ]
    if why or "tests" not in request.args:
        return [], why
    try:
        return comparison.compare_stored(context(), reader(), jobs), []
    except InvalidInput as error:
        return [], [f"{one.where} {one.what}" for one in error.problems]
    except ServiceError as error:
        return [], [str(error)]
