"""Artifacts over HTTP: a redirect to a presigned address, or the bytes with ranges and conditional requests."""

from flask import Response, redirect, send_file

from services.artifacts import ArtifactStore
from services.tables import Artifact


def artifact_response(store: ArtifactStore, artifact: Artifact) -> Response:
    """The answer to a request for an artifact. Raises StorageError."""
    address = store.address(artifact.key, artifact.name)
    if address is not None:
        response = redirect(address, code=302)
        assert isinstance(response, Response)  # noqa: S101 - flask.redirect is typed for werkzeug
        return response
    return send_file(
        store.open(artifact.key),
        mimetype=artifact.media_type,
        as_attachment=True,
        download_name=artifact.name,
        etag=artifact.sha256,
        conditional=True,
    )
