"""Artifacts over HTTP: a redirect to a presigned address, or the bytes with ranges and conditional requests.

A run's page is shown in the browser, everything else is saved. What it shows came from a run, and names in it from
users, so it is served without any rights: in a sandbox with an origin of its own, without scripts, without a word to
any host, ours included. A store cannot be told to say so, so pages always come from here.
"""

from flask import Response, redirect, request, send_file

from services import audit, views
from services.artifacts import ArtifactStore
from services.audit import Act
from services.context import Context
from services.errors import ArtifactMissing
from services.tables import Artifact
from services.tokens import Principal

PAGE = "text/html"
RIGHTS = "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'"


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


def artifact_response(store: ArtifactStore, artifact: Artifact) -> Response:
    """The answer to a request for an artifact. Raises StorageError."""
    is_page = artifact.media_type == PAGE
    address = None if is_page else store.address(artifact.key, artifact.name)
    if address is not None:
        response = redirect(address, code=302)
        assert isinstance(response, Response)  # noqa: S101 - flask.redirect is typed for werkzeug
        return response
    path = store.local_path(artifact.key)  # a file has a length, which ranges need
    if path is not None and not path.is_file():
        raise ArtifactMissing(f"the store has no {artifact.key}")
    response = send_file(
        path or store.open(artifact.key),
        mimetype=artifact.media_type,
        as_attachment=not is_page,
        download_name=artifact.name,
        etag=artifact.sha256,
        conditional=True,
    )
    response.headers["Content-Security-Policy"] = RIGHTS
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response
