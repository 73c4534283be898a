"""`/models`: registered models, one of them with its versions and aliases, and registering what a job has trained."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from flask import Blueprint, Response, abort, flash, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as BaseResponse

from bgpanet.errors import InvalidInput, Problem
from bgpanet.specs import ExportSpec
from services import model_bundles, model_jobs, models, projects, views
from services.asking import context, reader, writer
from services.dashboard.lists import LONGEST
from services.dashboard.markdown import rendered
from services.dashboard.results import main_figure, results
from services.downloads import download_model
from services.errors import Conflict, NotFound, StorageError
from services.tokens import ROLES

routes = Blueprint("models", __name__, url_prefix="/models")
FIELDS = ("job", "name", "alias", "note", "project")
LONGEST_NOTE = 2000  # characters
BOUND = float(ExportSpec.model_fields["bound"].default)

log = logging.getLogger(__name__)


@routes.get("")
def page() -> str:
    q = request.args.get("q", "").strip()[:LONGEST]
    found = models.list_models(context().database, reader(), q or None, request.args.get("cursor"))
    newest = models.newest_versions(context().database, reader(), [model["id"] for model in found.items])
    jobs = [version["job"] for version in newest.values() if version["job"]]
    return render_template(
        "models.html",
        models=found.items,
        newest=newest,
        figures={model_id: main_figure(_measured(version)) for model_id, version in newest.items()},
        jobs=views.visible_among(context().database, reader(), jobs),
        next_cursor=found.next_cursor,
        q=q,
    )


# ── Registering ───────────────────────────────────────────────────────────────────────────────────────────────────


@routes.get("/new")
def new() -> str:
    writer()
    job_id = request.args.get("job", "")
    return _form({"job": job_id, "name": request.args.get("name", "")[:LONGEST]})


@routes.post("/new")
def register() -> BaseResponse | tuple[str, int]:
    principal = writer()
    values = {name: request.form.get(name, "").strip() for name in FIELDS}
    try:
        if len(values["note"]) > LONGEST_NOTE:
            raise InvalidInput.one("note", f"has {len(values['note'])} characters, more than {LONGEST_NOTE}")
        optional = {name: values[name] or None for name in ("alias", "note", "project")}
        wanted = models.Wanted(values["name"], values["job"], **optional)
        version, created = models.register(context(), principal, wanted)
    except InvalidInput as error:
        return _form(values, error.problems), 422
    named = f"{version['model']}@{version['version']}"
    flash(f"Registered as {named}." if created else f"{named} has this very content already.")
    return redirect(address(version), code=303)


def _form(values: Mapping[str, str], problems: Sequence[Problem] = ()) -> str:
    seen = projects.list_projects(context().database, reader())
    mine = [one["id"] for one in seen if reader().is_admin or one["role"] in ("researcher", "admin")]
    try:
        job = views.get_job(context().database, reader(), values["job"])
    except NotFound:
        job = None
    told = {problem.where: problem.what for problem in problems}
    return render_template("model_new.html", values=values, problems=problems, told=told, job=job, projects=mine)


# ── One model ─────────────────────────────────────────────────────────────────────────────────────────────────────


@routes.get("/<model_id>")
def show(model_id: str) -> str:
    return shown(model_id)


@routes.get("/<model_id>/versions/<version>")
def show_version(model_id: str, version: str) -> str:
    return shown(model_id, version)


def shown(model_id: str, version: str | None = None, **more: Any) -> str:
    """The page of a model with one of its versions, the newest that is ready unless it is named. Raises NotFound."""
    database, principal = context().database, reader()
    if version is not None:
        chosen = models.get_version(database, principal, reference(model_id, version))
        model_id = chosen["model_id"]
    model = models.get_model(database, principal, model_id)
    versions = models.list_versions(database, principal, model["id"])
    if version is None:
        chosen = next((one for one in versions if one["state"] == "ready"), versions[0])
    jobs = [one["job"] for one in versions if one["job"]]
    values = {
        "model": model,
        "versions": versions,
        "chosen": chosen,
        "figures": {one["id"]: main_figure(_measured(one)) for one in versions},
        "jobs": views.visible_among(database, principal, jobs),
        "may_change": reader().may_write and may_change(model["project"]),
        "ready": [one["version"] for one in versions if one["state"] == "ready"],
    }
    if request.headers.get("X-Live"):
        return render_template("live/model.html", **values, is_live=True)
    return render_template(
        "model.html",
        **values,
        results=results(_measured(chosen)),
        card=_card(chosen),
        exports=_exports(chosen),
        has_dataset=_sees_dataset(chosen["provenance"].get("dataset_id")),
        **more,
    )


def reference(model_id: str, version: str) -> str:
    """What names a version of an address: its id, or the model with a number or an alias."""
    return version if models.JOB_ID.fullmatch(version) else f"{model_id}@{version}"


def address(version: Mapping[str, Any]) -> str:
    """The page that shows a version."""
    which = version["version"] or version["id"]
    return url_for("dashboard.models.show_version", model_id=version["model_id"], version=which)


def may_change(project: str) -> bool:
    """Whether who looks may add to a project's models, and move their aliases."""
    role = projects.role_in(context().database, reader(), project)
    return role is not None and ROLES.index(role) >= ROLES.index("researcher")


def _measured(version: Mapping[str, Any]) -> Mapping[str, Any]:
    """The figures that were measured here. What an imported version tells of itself is a stranger's word, and may be
    anything: it is shown as it is, unchecked, with where the version came from."""
    return version["metrics"] if version["source"] == "trained" else {}


def _card(version: Mapping[str, Any]) -> str | None:
    try:
        text = model_bundles.card_text(context().store, context().database, reader(), version["id"])
    except StorageError as error:  # a page without it is better than none
        log.warning("version %s: its card can't be read: %s", version["id"], error)
        return None
    return None if text is None else rendered(text)


def _exports(version: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Jobs that wrote it as ONNX, with the names of their files."""
    database, principal = context().database, reader()
    jobs = model_jobs.list_exports(database, principal, version["id"])
    return [{**job, "files": views.list_artifacts(database, principal, job["id"])} for job in jobs]


def _sees_dataset(dataset_id: str | None) -> bool:
    if not dataset_id:
        return False
    try:
        views.find_dataset(context().database, reader(), dataset_id)
    except NotFound:
        return False
    return True


# ── Files ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@routes.get("/<model_id>/versions/<version>/files")
def files(model_id: str, version: str) -> Response:
    """The version as a zip with safetensors."""
    return download_model(context(), reader(), reference(model_id, version))


@routes.post("/<model_id>/versions/<version>/onnx")
def export_onnx(model_id: str, version: str) -> BaseResponse:
    principal = writer()
    chosen = models.get_version(context().database, principal, reference(model_id, version))
    model_jobs.export_onnx(context(), principal, chosen["id"], BOUND)
    flash("A worker writes it as ONNX and compares its answers; the file stands under Files then.")
    return redirect(f"{address(chosen)}#files", code=303)


# ── Changing ──────────────────────────────────────────────────────────────────────────────────────────────────────


@routes.post("/<model_id>/aliases")
def set_alias(model_id: str) -> BaseResponse | tuple[str, int]:
    """Has an alias stand for a version; `expected` is where the page had shown it, 0 for nowhere."""
    principal, database = writer(), context().database
    models.require(database, principal, model_id)
    alias = request.form.get("alias", "").strip()
    try:
        version, expected = _number("version"), _number("expected") if "expected" in request.form else None
        model = models.point(database, principal, model_id, alias, version, expected)
    except (InvalidInput, Conflict) as error:
        problems = error.problems if isinstance(error, InvalidInput) else [Problem("alias", str(error))]
        return shown(model_id, alias_problems=problems, alias=alias), 422 if isinstance(error, InvalidInput) else 409
    flash(f"{alias} stands for version {version} now.")
    return redirect(url_for("dashboard.models.show", model_id=model["id"]), code=303)


@routes.post("/<model_id>/aliases/<alias>/remove")
def drop_alias(model_id: str, alias: str) -> BaseResponse:
    principal, database = writer(), context().database
    models.require(database, principal, model_id)
    models.drop(database, principal, model_id, alias)
    flash(f"{alias} stands for nothing now.")
    return redirect(url_for("dashboard.models.show", model_id=model_id), code=303)


@routes.post("/<model_id>/remove")
def remove(model_id: str) -> BaseResponse:
    """Removes the files of the version that is named, or of all where the field is sent empty."""
    principal = writer()
    models.require(context().database, principal, model_id)
    if "version" not in request.form:
        abort(400, "the form does not say of which version")
    version = request.form["version"] or None
    models.remove(context(), principal, model_id, version)
    flash(f"Version {version} was removed." if version else "All versions were removed.")
    return redirect(url_for("dashboard.models.show", model_id=model_id), code=303)


def _number(field: str) -> int:
    text = request.form.get(field, "").strip()
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise InvalidInput.one(field, "must be a whole number")
    return int(text)
