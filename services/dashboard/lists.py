"""`/jobs`."""

from typing import Any

from flask import Blueprint, abort, flash, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as BaseResponse

from bgpanet.specs import SPECS
from services import steering, views
from services.asking import context, reader, writer
from services.dashboard.access import own_path
from services.dashboard.results import main_figure
from services.errors import Busy, Conflict, NotFound
from services.listing import HIDDEN, SORTS, JobFilter
from services.tokens import Principal

routes = Blueprint("lists", __name__)
LONGEST = 200  # characters of a search
MOST_SELECTED = 100
MOST_CHILDREN = 200  # that a list unfolds; the parent's own page has all


@routes.get("/jobs")
def jobs() -> str:
    asked = {name: request.args.get(name, "")[:LONGEST] for name in ("state", "kind", "dataset", "q", "sort")}
    if asked["sort"] not in SORTS or asked["sort"] == "newest":
        asked["sort"] = ""
    wanted = JobFilter(**{name: value for name, value in asked.items() if value})
    page = views.list_jobs(context().database, reader(), wanted, request.args.get("cursor"))
    opened = request.args.get("open", "")
    return render_template(
        template("jobs"),
        jobs=[{**job, "figure": main_figure(job["summary"])} for job in page.items],
        opened=opened,
        children=_children(opened, page.items),
        next_cursor=page.next_cursor,
        counts=views.count_states(context().database, reader()),
        kinds=[kind for kind in SPECS if kind != HIDDEN],
        sorts=list(SORTS),
        asked={name: value for name, value in asked.items() if value},
        rest={name: value for name, value in asked.items() if value and name != "state"},
    )


@routes.post("/jobs/selected")
def selected() -> BaseResponse:
    """Does one thing with several jobs: `compare` shows them, the others steer each for itself."""
    ids, action = list(dict.fromkeys(request.form.getlist("job"))), request.form.get("action", "")
    if not ids:
        flash("No job was selected.")
    elif action == "compare":
        return redirect(url_for("dashboard.compare.page", job=ids), code=303)
    elif action in ("cancel", "retry"):
        principal = writer()
        for job_id in ids[:MOST_SELECTED]:
            flash(_steer(action, principal, job_id))
    else:
        abort(400, f"{action!r} can't be done with several jobs")
    return redirect(own_path(request.form.get("back", ""), default=url_for("dashboard.lists.jobs")), code=303)


def _steer(action: str, principal: Principal, job_id: str) -> str:
    """Cancels or tries again one of several; says what became of it."""
    try:
        if action == "cancel":
            job = steering.cancel(context(), principal, job_id)
            return f"{job['name']}: {'asked to end' if job['state'] == 'running' else job['state']}"
        job, _ = steering.retry(context(), principal, job_id)
        return f"{job['name']}: job {job['id'][:8]} tries it again"
    except (NotFound, Conflict, Busy) as error:
        return f"Not done: {error}"


def _children(opened: str, shown: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The children of the parent that is unfolded, if it is on this page."""
    if not any(job["id"] == opened and job["children"] for job in shown):
        return []
    children = views.list_children(context().database, reader(), opened)[:MOST_CHILDREN]
    return [{**job, "figure": main_figure(job["summary"])} for job in children]


def template(name: str) -> str:
    """The whole page, or only its live regions where `static/live.js` asks for them."""
    return f"live/{name}.html" if request.headers.get("X-Live") else f"{name}.html"


def visible_jobs(members: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The jobs that workers work on, by id, as far as one may see them."""
    return views.jobs_among(context().database, reader(), {member["job"] for member in members if member["job"]})
