"""`/workers`: each worker with its slots, how busy they were, and how it is told to leave."""

from collections.abc import Sequence
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import Any

from flask import Blueprint, abort, flash, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as BaseResponse

from services import fleet, fleet_use, views
from services.asking import context, reader
from services.audit import Act, noted
from services.dashboard.drawing import steps
from services.dashboard.formatting import percent
from services.dashboard.lists import template, visible_jobs
from services.errors import Conflict
from services.fleet_use import Use
from services.overview import Remembered

routes = Blueprint("workers", __name__, url_prefix="/workers")
SPANS = {"3": "3 hours", "24": "24 hours", "48": "2 days"}
BINS = 90  # of a chart
SECONDS = 20.0  # that charts are good enough for
USUAL = "24"

_used = {span: Remembered(partial(fleet_use.history, hours=float(span), bins=BINS), SECONDS) for span in SPANS}


@routes.get("")
def page() -> str:
    span = request.args.get("span", USUAL)
    span = span if span in SPANS else USUAL
    slots = views.list_workers(context().database)
    used = _used[span](context().database)
    slots = [{**slot, "chart": _chart(used.get(slot["name"], ()), SPANS[span])} for slot in slots]
    ordered = sorted(slots, key=itemgetter("worker"))
    return render_template(
        template("workers"),
        workers=[_worker(name, list(own)) for name, own in groupby(ordered, itemgetter("worker"))],
        jobs=visible_jobs(slots),
        spans=SPANS,
        span=span,
        usual=USUAL,
    )


@routes.post("/<path:worker>/drain")
def drain(worker: str) -> BaseResponse:
    principal, database = reader(), context().database
    if not (principal.is_admin and principal.may_manage):
        abort(403, "workers are told to leave by admins, with tokens that have the scope `manage`")
    try:
        name = fleet.drain(database, worker, principal.user, noted(database, Act(principal, "worker.drain")))
        flash(f"{name} was asked to leave: its jobs write a checkpoint and go on elsewhere.")
    except Conflict as error:
        flash(f"Not done: {error}")
    return redirect(url_for("dashboard.workers.page"), code=303)


def _worker(name: str, slots: list[dict[str, Any]]) -> dict[str, Any]:
    """What is told once of all slots of a worker; its latest heartbeat tells of the host."""
    latest = max(slots, key=itemgetter("seen_at"))
    shared = sorted(set(slots[0]["labels"]).intersection(*(slot["labels"] for slot in slots)))
    told = ("host", "pid", "version", "started_at", "seen_at", "figures", "weights")
    return {
        "name": name,
        **{key: latest[key] for key in told},
        "slots": slots,
        "labels": shared,
        "busy": sum(slot["state"] == "busy" for slot in slots),
        "is_heard": any(slot["state"] != "lost" for slot in slots),
        "may_leave": any(slot["state"] not in ("lost", "draining") for slot in slots),
    }


def _chart(uses: Sequence[Use | None], span: str) -> dict[str, str] | None:
    """A slot's use as two areas, jobs behind the GPU's, and in words; None where nothing was told."""
    known = [use for use in uses if use is not None]
    if not known:
        return None
    gpu = [use.gpu_percent for use in known if use.gpu_percent is not None]
    words = f"had a job {percent(sum(use.busy for use in known) / len(known))} of the time"
    words += f", GPU {percent(sum(gpu) / len(gpu) / 100)} on average" if gpu else ""
    return {
        "busy": steps([None if use is None else use.busy for use in uses]),
        "gpu": steps([None if use is None or use.gpu_percent is None else use.gpu_percent / 100 for use in uses]),
        "words": words,
        "title": f"Use over the last {span}: {words}",
    }
