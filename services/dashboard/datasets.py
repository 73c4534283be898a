"""`/datasets`: data sets, one data set with its checks and pictures, and registering another one."""

import json
import logging
from typing import Any

from flask import Blueprint, Response, abort, flash, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as BaseResponse

from bgpanet.data.readers import READERS
from bgpanet.errors import InvalidInput
from bgpanet.specs import LockSpec
from services import datasets, pictures, views
from services.asking import context, reader, writer
from services.audit import Act, noted
from services.dashboard.lists import template
from services.datasets import Registration
from services.errors import StorageError
from services.listing import JobFilter
from services.tables import Dataset

routes = Blueprint("datasets", __name__, url_prefix="/datasets")
OF_CLASS = 4  # pictures
MOST_PAIRS = 12  # of duplicates, of each kind
MOST_RUNS = 100  # that are asked what they counted
MOST_BYTES = 20_000_000  # of a report of checks
FIELDS = ("name", "format", "place", "licence", "citation", "locked")

log = logging.getLogger(__name__)


@routes.get("")
def page() -> str:
    found = views.list_datasets(context().database, reader(), request.args.get("cursor"))
    return render_template(template("datasets"), datasets=found.items, next_cursor=found.next_cursor)


@routes.get("/new")
def new() -> str:
    writer()
    return render_template("dataset_new.html", formats=list(READERS), values={}, problems=[])


@routes.post("/new")
def register() -> BaseResponse | tuple[str, int]:
    principal = writer()
    values = {name: request.form.get(name, "").strip() for name in FIELDS}
    place = values["place"]
    is_upload = not place.startswith(("/", "s3:"))
    if not is_upload and not principal.is_admin:
        abort(403, "folders and buckets that workers see are registered by admins; upload the files instead")
    try:
        asked = Registration(
            name=values["name"],
            format=values["format"],
            folder=place if place.startswith("/") else None,
            s3=place if place.startswith("s3:") else None,
            upload=place if is_upload else None,
            licence=values["licence"] or None,
            citation=values["citation"] or None,
            locked=_locked(values["locked"]),
        )
        dataset_id, _ = datasets.register(context(), principal, asked)
    except InvalidInput as error:
        problems = [{"field": one.where, "what": one.what} for one in error.problems]
        return render_template("dataset_new.html", formats=list(READERS), values=values, problems=problems), 422
    flash("It is being registered: read, checked and packed.")
    return redirect(url_for("dashboard.datasets.show", dataset_id=dataset_id), code=303)


@routes.get("/<dataset_id>")
def show(dataset_id: str) -> str:
    row = views.find_dataset(context().database, reader(), dataset_id)
    data = views.get_dataset(context().database, reader(), row.id)
    samples = pictures.samples(context().store, row, OF_CLASS) if data["state"] == "ready" else {}
    checks = _checks(row)
    return render_template(
        template("dataset"),
        data=data,
        samples=samples,
        duplicates=_pairs(checks.get("duplicates") or {}),
        shared=_pairs(checks.get("shared") or {}),
        leakage=_leakage(row.id, checks) if data["state"] == "ready" and checks else None,
        may_remove=datasets.may_remove(context().database, reader(), row) and data["state"] == "ready",
    )


@routes.get("/<dataset_id>/images/<image_id>")
def image(dataset_id: str, image_id: str) -> Response:
    row = views.find_dataset(context().database, reader(), dataset_id)
    small = pictures.thumbnail(context().store, row, image_id)
    if small is None:
        abort(404, f"there is no picture of {image_id!r}")
    return Response(small, mimetype="image/jpeg")


@routes.post("/<dataset_id>/remove")
def remove(dataset_id: str) -> BaseResponse:
    principal, row = writer(), views.find_dataset(context().database, reader(), dataset_id)
    if not datasets.may_remove(context().database, principal, row):
        abort(403, "a data set is removed by an admin, or by who registered it")
    act = Act(principal, "dataset.remove", project=row.project, detail={"name": row.name})
    datasets.remove(context().database, context().store, row.id, principal.user, noted(context().database, act))
    flash(f"{row.name} was removed.")
    return redirect(url_for("dashboard.datasets.page"), code=303)


def _locked(share: str) -> LockSpec | None:
    """The part that no training sees, from its share in percent. Raises InvalidInput."""
    if not share:
        return None
    try:
        return LockSpec(share=float(share) / 100, seed=0)
    except ValueError:
        raise InvalidInput.one("locked", "must be a number from 5 to 50, or empty") from None


def _checks(row: Dataset) -> dict[str, Any]:
    """The whole report of a data set's checks; {} where it is not there or cannot be read."""
    file = views.find_checks(context().database, row)
    if file is None or file.size > MOST_BYTES:
        return {}
    try:
        with context().store.open(file.key) as stream:
            told = json.load(stream)
    except (StorageError, ValueError) as error:
        log.warning("data set %s: its checks can't be read: %s", row.id, error)
        return {}
    return told if isinstance(told, dict) else {}


def _leakage(dataset_id: str, checks: dict[str, Any]) -> dict[str, Any]:
    """What keeps test images apart from trained ones, and what does not: groups of several images, pairs that show the
    same in two groups, in two classes and in other data sets, and what finished runs have counted."""
    sizes = {int(size): count for size, count in (checks.get("groups") or {}).get("sizes", {}).items() if int(size) > 1}
    duplicates, shared = checks.get("duplicates") or {}, checks.get("shared") or {}
    wanted = JobFilter(dataset=dataset_id, state="succeeded")
    ended = views.list_jobs(context().database, reader(), wanted, limit=MOST_RUNS).items
    runs = [job for job in ended if "leakage" in job["summary"]]
    return {
        "groups": sum(sizes.values()),
        "images": sum(size * count for size, count in sizes.items()),
        "across": {
            kind: duplicates[kind]["count"] for kind in ("across groups", "across classes") if kind in duplicates
        },
        "others": {name: told["count"] for name, told in shared.items()},
        "runs": len(runs),
        "leaking": [job for job in runs if job["summary"]["leakage"]["groups"]],
    }


def _pairs(kinds: dict[str, Any]) -> list[dict[str, Any]]:
    """Pairs of images that show the same, by what they join, without kinds of which there are none."""
    return [
        {"kind": kind, **told, "pairs": told["pairs"][:MOST_PAIRS]} for kind, told in kinds.items() if told["count"]
    ]
