"""`/submit`: a job put together in a form, checked while it is filled in, and told as a request of the API."""

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, get_args

from flask import Blueprint, abort, flash, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as BaseResponse

from bgpanet.errors import InvalidInput
from bgpanet.specs import SPECS, Kind
from services import submission, views
from services.asking import context, reader, writer
from services.dashboard.forms import groups_of, read_spec
from services.errors import NotFound
from services.listing import JobFilter
from services.submission import Request

routes = Blueprint("submit", __name__, url_prefix="/submit")
KINDS: tuple[str, ...] = get_args(Kind)  # what people submit
MICRO = {
    "model": {"name": "bgpanet_micro"},
    "subset": {"max_groups_per_class": 100},
    "training": {"epochs": 30, "batch_size": 32, "learning_rate": 1e-3, "warmup_epochs": 2.0, "patience": 30},
}
PRESETS: dict[str, tuple[str, dict[str, Any]]] = {
    "article": ("Article recipe", {"model": {"name": "bgpanet", "weights": "imagenet"}}),
    "quick": ("Quick look", MICRO),
}
"""What a form may be filled with, by name: what it is called, and the spec."""
MOST_OFFERED = 100  # data sets
MOST_FOLLOWED = 12  # jobs that are offered to be waited for, in each state
MOST_AFTER = 100  # jobs that one waits for
OF_CHILDREN = ("cross_validate", "study", "predict")  # kinds that may consist of several jobs
WAYS = ("finish_rest", "fail_fast")  # what becomes of the others when one of several jobs fails
LONGEST_NAME = 200  # characters, of a job


@routes.get("")
def form() -> str:
    writer()
    asked = request.args
    values: dict[str, str] = {"kind": asked.get("kind", ""), "dataset": asked.get("dataset", "")}
    spec: Mapping[str, Any] = {}
    if asked.get("clone"):
        job = views.get_job(context().database, reader(), asked["clone"])
        spec = job["spec"]
        values = {"kind": job["kind"], "dataset": job["dataset_id"], "priority": str(job["priority"])}
        values |= {"time_limit": str(job["time_limit"] or ""), "clone": job["id"]}
        values |= {"on_failure": job["on_failure"] or ""}
    elif asked.get("preset") in PRESETS:
        spec = PRESETS[asked["preset"]][1]
    elif asked.get("model"):
        spec = {"model": asked["model"]}
    values["after"] = ",".join(asked.getlist("after"))
    if values["kind"] not in KINDS:
        values["kind"] = "train"
    return _page(values, spec)


@routes.post("")
def post() -> BaseResponse | tuple[str, int]:
    principal, values = writer(), _values()
    spec = read_spec(_kind(values), values)
    try:
        job, _ = submission.submit(context(), principal, _asked(values, spec))
    except InvalidInput as error:
        return _page(values, spec, error), 422
    flash("Submitted.")
    return redirect(url_for("dashboard.job.page", job_id=job["id"]), code=303)


@routes.post("/check")
def check() -> str:
    """What is wrong with the form as it stands, and the same job as a request."""
    principal, values = writer(), _values()
    spec = read_spec(_kind(values), values)
    checked, problem = None, None
    try:
        checked = submission.check(context(), principal, _asked(values, spec))
    except InvalidInput as error:
        problem = error
    return render_template("live/submit.html", **_told(values, spec, problem), checked=checked)


def _values() -> dict[str, str]:
    """The form that was sent; of the jobs to wait for, several, the ids with commas."""
    return {**request.form.to_dict(), "after": ",".join(request.form.getlist("after"))}


def _page(values: Mapping[str, str], spec: Mapping[str, Any], problem: InvalidInput | None = None) -> str:
    kind = values["kind"] if values.get("kind") in KINDS else "train"
    sets = views.list_datasets(context().database, reader(), limit=MOST_OFFERED).items
    source = values.get("clone") and views.get_job(context().database, reader(), values["clone"])
    offered = [one for one in sets if one["state"] in ("ready", "registering")]
    if not values.get("dataset"):  # what a training can learn from comes first
        labelled = [one["id"] for one in offered if one["classes"]] if kind != "predict" else []
        values = {**values, "dataset": next(iter([*labelled, *(one["id"] for one in offered)]), "")}
    return render_template(
        "submit.html",
        **_told({**values, "kind": kind}, spec, problem),
        kinds={kind: " ".join((SPECS[kind].__doc__ or "").split()) for kind in KINDS},
        groups=groups_of(kind, spec),
        datasets=offered,
        followed=_followed(_after(values)),
        after=_after(values),
        has_children=kind in OF_CHILDREN,
        presets={name: words for name, (words, _) in PRESETS.items()},
        source=source or None,
        checked=None,
    )


def _after(values: Mapping[str, str]) -> list[str]:
    return [one for one in values.get("after", "").split(",") if one]


def _followed(chosen: list[str]) -> list[dict[str, Any]]:
    """Jobs that another one may wait for: those that were chosen, that run, and that wait."""
    principal, database = reader(), context().database
    found = {}
    for state in ("running", "queued"):
        for job in views.list_jobs(database, principal, JobFilter(state=state), limit=MOST_FOLLOWED).items:
            found[job["id"]] = job
    for job_id in chosen[:MOST_AFTER]:
        with suppress(NotFound):
            found.setdefault(job_id, views.get_job(database, principal, job_id))
    return sorted(found.values(), key=lambda job: job["id"] not in chosen)


def _kind(values: Mapping[str, str]) -> str:
    """The kind of job of a filled form; 400 for one that no form is made for."""
    kind = values.get("kind", "")
    if kind not in KINDS:
        abort(400, f"unknown kind {kind!r}; known: {', '.join(KINDS)}")
    return kind


def _asked(values: Mapping[str, str], spec: Mapping[str, Any]) -> Request:
    """The request that a filled form makes. Raises InvalidInput, NotFound."""
    if values.get("clone"):
        views.get_job(context().database, reader(), values["clone"])
    after = _after(values)
    if len(after) > MOST_AFTER:
        raise InvalidInput.one("after", f"are {len(after)} jobs; {MOST_AFTER} at most")
    return Request(
        kind=_kind(values),
        dataset=values.get("dataset", ""),
        spec=spec,
        name=values.get("name", "").strip()[:LONGEST_NAME] or None,
        priority=_whole(values, "priority", -100, 100) or 0,
        time_limit=_whole(values, "time_limit", 1, 2**31 - 1),
        after=after,
        on_failure=_on_failure(values),
        cloned_from=values.get("clone") or None,
    )


def _on_failure(values: Mapping[str, str]) -> str:
    """Raises InvalidInput."""
    chosen = values.get("on_failure") or WAYS[0]
    if chosen not in WAYS:
        raise InvalidInput.one("on_failure", f"must be one of {', '.join(WAYS)}")
    return chosen


def _whole(values: Mapping[str, str], name: str, least: int, most: int) -> int | None:
    """A whole number; None where the field is empty. Raises InvalidInput."""
    text = values.get(name, "").strip()
    if not text:
        return None
    try:
        number = int(text)
    except ValueError:
        number = most + 1
    if not least <= number <= most:
        raise InvalidInput.one(name, f"must be a whole number from {least} to {most:,}")
    return number


def _told(values: Mapping[str, str], spec: Mapping[str, Any], problem: InvalidInput | None) -> dict[str, Any]:
    """What both the page and its live part show."""
    problems = [{"field": one.where, "what": one.what} for one in problem.problems] if problem else []
    name = next((d["name"] for d in _named(values.get("dataset", ""))), values.get("dataset", "")) or "ham10000"
    body: dict[str, Any] = {"kind": values["kind"], "dataset": name}
    body |= {"name": text} if (text := values.get("name", "").strip()) else {}
    for key in ("priority", "time_limit"):
        text = values.get(key, "").strip().removeprefix("+")
        body |= {key: int(text)} if text.removeprefix("-").isdecimal() and len(text) < 12 and text != "0" else {}
    body |= {"after": after} if (after := _after(values)) else {}
    body |= {"on_failure": way} if (way := values.get("on_failure", "")) not in ("", WAYS[0]) else {}
    body["spec"] = spec
    return {
        "values": values,
        "problems": problems,
        "body": json.dumps(body, indent=2, ensure_ascii=False),
        "options": {key: value for key, value in body.items() if key != "kind"},
    }


def _named(dataset: str) -> list[dict[str, Any]]:
    sets = views.list_datasets(context().database, reader(), limit=MOST_OFFERED).items if dataset else []
    return [one for one in sets if dataset == one["id"]]
