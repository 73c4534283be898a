"""Artifacts over HTTP: a redirect to a presigned address, or the bytes with ranges and conditional requests; models.

A run's page is shown in the browser, everything else is saved. What it shows came from a run, and names in it from
users, so it is served without any rights: in a sandbox with an origin of its own, without scripts, without a word to
any host, ours included. A store cannot be told to say so, so pages always come from here.
"""

import re

from flask import Response, redirect, request, send_file
from werkzeug.exceptions import RequestedRangeNotSatisfiable

from services import audit, model_bundles, views
from services.artifacts import ArtifactStore
from services.audit import Act
from services.context import Context
from services.errors import ArtifactMissing
from services.tables import Artifact
from services.tokens import Principal

PAGE = "text/html"
RIGHTS = "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'"
RANGE = re.compile(r"bytes=(\d{1,18})?-(\d{1,18})?")


def download(context: Context, principal: Principal, job_id: str, name: str) -> Response:
    """The answer to somebody who asks for an artifact; who was given its beginning stands in the audit trail.

    Raises NotFound, StorageError.
    """
    project = views.get_job(context.database, principal, job_id)["project"]
    response = artifact_response(context.store, views.get_artifact(context.database, principal, job_id, name))
    begins = response.status_code in (200, 302) or response.headers.get("Content-Range", "").startswith("bytes 0-")
    if request.method == "GET" and begins:
        audit.note(context.database, Act(principal, "artifact.download", job_id, project, {"name": name}))
    return response


def download_model(context: Context, principal: Principal, reference: str) -> Response:
    """A registered version as a zip; who was given it stands in the audit trail.

    Raises NotFound, Conflict, StorageError.
    """
    name, row, about = model_bundles.bundled(context.database, principal, reference)
    for file in row.files.values():
        if not context.store.exists(str(file["key"])):
            raise ArtifactMissing(f"the store has no {file['key']}")
    audit.note(context.database, Act(principal, "model.download", row.id, detail={"name": name}))
    response = Response(model_bundles.zipped(context.store, row, about), mimetype="application/zip")
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return response


def artifact_response(store: ArtifactStore, artifact: Artifact) -> Response:
    """The answer to a request for an artifact. Raises StorageError."""
    is_page = artifact.media_type == PAGE
    address = None if is_page else store.address(artifact.key, artifact.name)
    if address is None:
        return _file(store, artifact, is_page)
    if artifact.sha256 in request.if_none_match:
        return _described(Response(status=304), artifact)
    if request.method == "HEAD":  # the address is signed for GET alone
        response = Response(mimetype=artifact.media_type, headers={"Accept-Ranges": "bytes"})
        response.content_length = artifact.size
        return _described(response, artifact)
    moved = redirect(address, code=302)
    assert isinstance(moved, Response)  # noqa: S101 - flask.redirect is typed for werkzeug
    return moved


def _file(store: ArtifactStore, artifact: Artifact, is_page: bool) -> Response:
    path = store.local_path(artifact.key)
    if path is not None and not path.is_file():
        raise ArtifactMissing(f"the store has no {artifact.key}")
    response = send_file(
        path or store.open(artifact.key),
        mimetype=artifact.media_type,
        as_attachment=not is_page,
        download_name=artifact.name,
        etag=artifact.sha256,
        conditional=False,
    )
    response.content_length = artifact.size
    asked = None if artifact.sha256 in request.if_none_match else _one_range(artifact.size)
    environ = {**request.environ, "HTTP_RANGE": asked or ""}
    try:
        response.make_conditional(environ, accept_ranges=asked is not None, complete_length=artifact.size)
    except RequestedRangeNotSatisfiable:
        response.close()
        raise
    response.headers["Accept-Ranges"] = "bytes"
    return _described(response, artifact)


def _described(response: Response, artifact: Artifact) -> Response:
    response.set_etag(artifact.sha256)
    response.headers["Content-Security-Policy"] = RIGHTS
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


def _one_range(size: int) -> str | None:
    """The one range of bytes that the request asks for. Several, and what is no range, get the whole file, which
    RFC 9110 allows; the last so many of fewer are all."""
    match = RANGE.fullmatch(request.headers.get("Range", "").replace(" ", ""))
    if match is None or match[0] == "bytes=-":
        return None
    first, last = match[1], match[2]
    if first is None:
        return "bytes=0-" if int(last) > size else match[0]
    return match[0] if last is None or int(first) <= int(last) else None
