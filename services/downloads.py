"""Artifacts over HTTP: a redirect to a presigned address, or the bytes with ranges and conditional requests.

A run's page is shown in the browser, everything else is saved. What it shows came from a run, and names in it from
users, so it is served without any rights: in a sandbox with an origin of its own, without scripts, without a word to
any host, ours included. A store cannot be told to say so, so pages always come from here.
"""

import re

from flask import Response, redirect, request, send_file
from werkzeug.exceptions import RequestedRangeNotSatisfiable

from services.artifacts import ArtifactStore
from services.errors import ArtifactMissing
from services.tables import Artifact

PAGE = "text/html"
RIGHTS = "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'"
RANGE = re.compile(r"bytes=(\d{1,18})?-(\d{1,18})?")


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
    response = redirect(address, code=302)
    assert isinstance(response, Response)  # noqa: S101 - flask.redirect is typed for werkzeug
    return response


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
    is_part = _is_one_range() and artifact.sha256 not in request.if_none_match
    try:
        response.make_conditional(request, accept_ranges=is_part, complete_length=artifact.size)
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


def _is_one_range() -> bool:
    """Whether the request asks for one range of bytes. Several, and what is no range, get the whole file, which
    RFC 9110 allows."""
    match = RANGE.fullmatch(request.headers.get("Range", "").replace(" ", ""))
    if match is None or match[0] == "bytes=-":
        return False
    return match[1] is None or match[2] is None or int(match[1]) <= int(match[2])
