"""Artifacts over HTTP: a redirect to a presigned address, or the bytes with ranges and conditional requests."""

from flask import Response, redirect, send_file

from services.artifacts import ArtifactStore
from services.errors import ArtifactMissing
from services.tables import Artifact


def artifact_response(store: ArtifactStore, artifact: Artifact) -> Response:
    """The answer to a request for an artifact. Raises StorageError."""
    address = store.address(artifact.key, artifact.name)
    if address is not None:
        response = redirect(address, code=302)
        assert isinstance(response, Response)  # noqa: S101 - flask.redirect is typed for werkzeug
        return response
    path = store.local_path(artifact.key)  # a file has a length, which ranges need
    if path is not None and not path.is_file():
        raise ArtifactMissing(f"the store has no {artifact.key}")
    return send_file(
        path or store.open(artifact.key),
        mimetype=artifact.media_type,
        as_attachment=True,
        download_name=artifact.name,
        etag=artifact.sha256,
        conditional=True,
    )
