"""`/api/v1/models`: networks that can be trained, and trained models that were registered."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from flask import Response, jsonify, request, url_for

from bgpanet.catalogue import MODELS
from bgpanet.errors import InvalidInput, Problem
from bgpanet.specs import MOST_TRIED
from bgpanet.validation import nearest
from services import model_jobs, models, steering, trials
from services.api import answers
from services.api.documentation import Media, Section, documented
from services.api.parsing import (
    AliasBody,
    ExportBody,
    ModelBody,
    ModelsQuery,
    TrialQuery,
    idempotency_key,
    parse_body,
    parse_query,
)
from services.asking import context, reader, writer
from services.downloads import download_model
from services.errors import NotFound

routes = Section(
    "models",
    __name__,
    url_prefix="/models",
    tags={"models": "Networks that can be trained, and trained models: versions, aliases, files, trying them out"},
    paths={
        "model_id": ("name of a network; name or id of a registered model", "lesions"),
        "version": ("number, alias or id of a version", "1"),
        "alias": ("an alias", "champion"),
    },
)


@routes.get("")
@documented({200: answers.ModelPage, 304: None}, query=ModelsQuery, headers=["If-None-Match"])
def get_models() -> Response:
    """List the networks that can be trained, and after them the registered models, newest first."""
    query = parse_query(ModelsQuery)
    items = []
    if query.kind != "registered" and query.cursor is None:
        asked = (query.q or "").casefold()
        items = [_network(name) for name in MODELS if asked in name.casefold()]
    if query.kind == "network":
        return jsonify({"items": items, "next_cursor": None})
    page = models.list_models(context().database, reader(), query.q, query.cursor, query.limit)
    return jsonify({"items": [*items, *page.items], "next_cursor": page.next_cursor})


def _network(name: str) -> dict[str, Any]:
    return {"kind": "network", "id": name, **asdict(MODELS[name])}


@routes.post("")
@documented(
    {201: answers.ModelVersion, 200: answers.ModelVersion},
    body=ModelBody,
    headers=["Idempotency-Key"],
    problems=[409, 429, 503],
)
def post_model() -> tuple[Response, int, dict[str, str]]:
    """Register the model of a finished training or cross-validation, or import an uploaded one: the next version.

    An upload is checked by a job; until then its version is `importing`. 200: the name has this very content already,
    and this is its version; or the `Idempotency-Key` was used for this very import before.
    """
    principal, body, key = writer(), parse_body(ModelBody), idempotency_key()
    if body.job is not None:
        wanted = models.Wanted(body.name, body.job, body.alias, body.note, body.project)
        version, created = models.register(context(), principal, wanted)
    else:
        coming = model_jobs.Coming(body.name, str(body.upload), body.note, body.project, key)
        version, created = model_jobs.import_model(context(), principal, coming)
    return jsonify(version), 201 if created else 200, {"Location": _address(version)}


def _address(version: dict[str, Any]) -> str:
    return url_for("api.models.get_version", model_id=version["model_id"], version=version["version"] or version["id"])


@routes.get("/<model_id>")
@documented({200: (answers.Network, answers.RegisteredModel), 304: None}, headers=["If-None-Match"], problems=[409])
def get_model(model_id: str) -> Response:
    """Show a network, or a registered model."""
    if model_id in MODELS:
        return jsonify(_network(model_id))
    try:
        return jsonify(models.get_model(context().database, reader(), model_id))
    except NotFound as error:
        near = nearest(model_id, MODELS)
        raise NotFound(f"{error}; did you mean {near!r}?" if near else str(error)) from None


@routes.delete("/<model_id>")
@documented({204: None}, problems=[409, 503])
def delete_model(model_id: str) -> tuple[str, int]:
    """Remove all versions of a model.

    What they were, and came from, can still be shown. 409: jobs wait for one, or run with it.
    """
    models.require(context().database, writer(), model_id)
    models.remove(context(), writer(), model_id)
    return "", 204


@routes.get("/<model_id>/versions")
@documented({200: answers.Page[answers.ModelVersion]}, problems=[409])
def get_versions(model_id: str) -> Response:
    """List versions of a model, newest first, also those that were refused or removed."""
    return jsonify({"items": models.list_versions(context().database, reader(), model_id), "next_cursor": None})


@routes.get("/<model_id>/versions/<version>")
@documented({200: answers.ModelVersion}, problems=[409])
def get_version(model_id: str, version: str) -> Response:
    """Show a version: its card, its figures, and where it came from."""
    return jsonify(models.get_version(context().database, reader(), _reference(model_id, version)))


def _reference(model_id: str, version: str) -> str:
    return version if models.JOB_ID.fullmatch(version) else f"{model_id}@{version}"


@routes.delete("/<model_id>/versions/<version>")
@documented({204: None}, problems=[409, 503])
def delete_version(model_id: str, version: str) -> tuple[str, int]:
    """Remove a version's files, and the aliases that stand for it.

    What it was, and came from, can still be shown. 409: jobs wait for it, or run with it.
    """
    models.require(context().database, writer(), model_id)
    models.remove(context(), writer(), model_id, version)
    return "", 204


@routes.get("/<model_id>/versions/<version>/export")
@documented({200: Media("application/zip", "The model")}, problems=[409, 503])
def get_export(model_id: str, version: str) -> Response:
    """Download a version as a zip: safetensors, model.json, card, where it came from, and digests of all."""
    return download_model(context(), reader(), _reference(model_id, version))


@routes.post("/<model_id>/versions/<version>/export")
@documented({201: answers.Job}, body=ExportBody, problems=[409, 429])
def post_export(model_id: str, version: str) -> tuple[Response, int, dict[str, str]]:
    """Have a version written as ONNX, by a job.

    Its files are `model.onnx` and `onnx.json`, which tells how far its answers are from the net's own. It fails where
    that is more than `bound`.
    """
    principal, body = writer(), parse_body(ExportBody)
    job = model_jobs.export_onnx(context(), principal, _reference(model_id, version), body.bound)
    shown = steering.show(context(), principal, job["id"])
    return jsonify(shown), 201, {"Location": url_for("api.jobs.get_job", job_id=job["id"])}


@routes.post("/<model_id>/predict")
@documented(
    {200: answers.Trial},
    body=Media(
        "multipart/form-data",
        "the images",
        {
            "type": "object",
            "required": ["images"],
            "properties": {
                "images": {
                    "type": "array",
                    "minItems": 1,
                    "maxItems": MOST_TRIED,
                    "items": {"type": "string", "format": "binary"},
                }
            },
        },
    ),
    query=TrialQuery,
    problems=[409, 429, 503, 504],
)
def post_predict(model_id: str) -> Response:
    """Try a model (`NAME`, `NAME@3`, `NAME@alias`) on up to 16 images, sent as `images`.

    For research, no diagnosis. A worker answers while the request waits: 504 where none did in time. An image that
    can't be used has an `error`, and the others their answers. Images lose everything but their pixels before they are
    stored, and are deleted with the answer.
    """
    principal, query = writer(), parse_query(TrialQuery)
    request.max_content_length = trials.MOST_FORM_BYTES
    asked = trials.Asked(query.overlays, query.explained, query.timeout)
    return jsonify(trials.try_out(context(), principal, model_id, _sent_images(), asked))


def _sent_images() -> Iterator[trials.Sent]:
    """The files of the form field `images`. Raises InvalidInput."""
    files = request.files.getlist("images")
    names = {name or "" for name in (*request.files, *request.form)}  # a part may come without one
    problems = [Problem(name, "unknown field; send files as `images`") for name in sorted(names)]
    problems = [problem for problem in problems if problem.where != "images" or not files]
    problems += trials.problems_of(files)
    if problems:
        raise InvalidInput(problems)
    return trials.sent(files)


@routes.put("/<model_id>/aliases/<alias>")
@documented({200: answers.RegisteredModel}, body=AliasBody, problems=[409])
def put_alias(model_id: str, alias: str) -> Response:
    """Have an alias stand for a version from now on.

    409: with `expected`, somebody else has moved it meanwhile.
    """
    principal, body = writer(), parse_body(AliasBody)
    models.require(context().database, writer(), model_id)
    database = context().database
    return jsonify(models.point(database, principal, model_id, alias, body.version, body.expected))


@routes.delete("/<model_id>/aliases/<alias>")
@documented({204: None}, problems=[409])
def delete_alias(model_id: str, alias: str) -> tuple[str, int]:
    """Forget an alias."""
    models.require(context().database, writer(), model_id)
    models.drop(context().database, writer(), model_id, alias)
    return "", 204
