"""`/jobs`, `/datasets`, `/workers`."""

from typing import Any

from flask import Blueprint, render_template, request

from bgpanet.specs import SPECS
from services import views
from services.dashboard.access import context, reader
from services.dashboard.results import main_figure
from services.errors import NotFound
from services.views import JobFilter

routes = Blueprint("lists", __name__)
LONGEST = 200  # characters of a search


@routes.get("/jobs")
def jobs() -> str:
    asked = {name: request.args.get(name, "")[:LONGEST] for name in ("state", "kind", "q")}
    wanted = JobFilter(state=asked["state"] or None, kind=asked["kind"] or None, q=asked["q"] or None)
    page = views.list_jobs(context().database, reader(), wanted, request.args.get("cursor"))
    return render_template(
        template("jobs"),
        jobs=[{**job, "figure": main_figure(job["summary"])} for job in page.items],
        next_cursor=page.next_cursor,
        counts=views.count_states(context().database, reader()),
        kinds=list(SPECS),
        asked={name: value for name, value in asked.items() if value},
    )


@routes.get("/datasets")
def datasets() -> str:
    page = views.list_datasets(context().database, reader(), request.args.get("cursor"))
    return render_template(template("datasets"), datasets=page.items, next_cursor=page.next_cursor)


@routes.get("/workers")
def workers() -> str:
    members = views.list_workers(context().database)
    return render_template(template("workers"), workers=members, jobs=_visible_jobs(members))


def template(name: str) -> str:
    """The whole page, or only its live regions where `static/live.js` asks for them."""
    return f"live/{name}.html" if request.headers.get("X-Live") else f"{name}.html"


def _visible_jobs(members: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The jobs that workers work on, by id, as far as one may see them."""
    found = {}
    for job_id in {member["job"] for member in members if member["job"]}:
        try:
            found[job_id] = views.get_job(context().database, reader(), job_id)
        except NotFound:
            continue
    return found
