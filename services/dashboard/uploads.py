"""`/datasets/uploads`: a file in parts, as the page for registering sends it: what the API has, for a session.

Parts go through this service, also where the store could take them itself: no page talks to another host.
"""

from typing import BinaryIO, cast

from flask import Blueprint, Response, jsonify, request

from bgpanet.errors import InvalidInput
from services import uploads
from services.asking import context, writer
from services.errors import Conflict, Damaged, StorageError
from services.uploads import NewUpload

routes = Blueprint("uploads", __name__, url_prefix="/datasets/uploads")


@routes.post("")
def begin() -> Response:
    """Begins an upload, or goes on with one of the same content."""
    size = request.form.get("size", "")
    if not (size.isascii() and size.isdigit() and len(size) < 16 and int(size) > 0):
        raise InvalidInput.one("size", "must be a number of bytes, and not 0")
    new = NewUpload(request.form.get("name", ""), int(size), _sha256(request.form.get("sha256", "")))
    return jsonify(uploads.begin(context(), writer(), new)[0])


@routes.put("/<upload_id>/parts/<int:number>")
def part(upload_id: str, number: int) -> tuple[str, int]:
    principal = writer()
    row = uploads.find(context(), principal, upload_id)
    sha256 = _sha256(request.args.get("sha256", ""))
    # One byte more than it may have: see services/api/uploads.py.
    request.max_content_length = uploads.part_size(row, number) + 1
    stream = cast(BinaryIO, request.stream)
    uploads.put_part(context(), principal, upload_id, number, stream, request.content_length or 0, sha256)
    return "", 204


@routes.post("/<upload_id>/complete")
def complete(upload_id: str) -> Response:
    return jsonify(uploads.complete(context(), writer(), upload_id))


@routes.errorhandler(InvalidInput)
def invalid(error: InvalidInput) -> tuple[Response, int]:
    return jsonify({"detail": "; ".join(map(str, error.problems))}), 422


@routes.errorhandler(Conflict)
def conflict(error: Conflict) -> tuple[Response, int]:
    return jsonify({"detail": str(error)}), 409


@routes.errorhandler(Damaged)
def damaged(error: Damaged) -> tuple[Response, int]:
    return jsonify({"detail": str(error)}), 422


@routes.errorhandler(StorageError)
def storage(error: StorageError) -> tuple[Response, int]:
    return jsonify({"detail": "the artifact store does not answer"}), 503


def _sha256(text: str) -> str:
    """A digest in hex. Raises InvalidInput."""
    if len(text) != 64 or set(text) - set("0123456789abcdef"):
        raise InvalidInput.one("sha256", "must be 64 hex digits")
    return text
