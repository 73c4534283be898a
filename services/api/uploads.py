"""`/api/v1/uploads`: a file in parts, each sent as often as it takes."""

from typing import BinaryIO, cast

from flask import Response, jsonify, request, url_for

from services import uploads
from services.api import answers
from services.api.documentation import Media, Section, documented
from services.api.parsing import UploadBody, content_digest, parse_body
from services.asking import context, reader, writer
from services.uploads import NewUpload

routes = Section(
    "uploads",
    __name__,
    url_prefix="/uploads",
    tags={"uploads": "Files that are sent in parts, to register data sets from"},
    paths={"upload_id": ("id of an upload", answers.ID), "number": ("number of a part, from 1", "1")},
)


@routes.post("")
@documented({201: answers.Upload, 200: answers.Upload}, body=UploadBody, problems=[409, 503])
def post_upload() -> tuple[Response, int, dict[str, str]]:
    """Begin an upload, or go on with one.

    200: this content was begun before, and `received` tells what is there of it.
    """
    principal, body = writer(), parse_body(UploadBody)
    upload, created = uploads.begin(context(), principal, NewUpload(**body.model_dump()))
    location = url_for("api.uploads.get_upload", upload_id=upload["id"])
    return jsonify(upload), 201 if created else 200, {"Location": location}


@routes.get("/<upload_id>")
@documented({200: answers.Upload}, problems=[503])
def get_upload(upload_id: str) -> Response:
    """Show an upload."""
    return jsonify(uploads.get(context(), reader(), upload_id))


@routes.delete("/<upload_id>")
@documented({204: None}, problems=[409, 503])
def delete_upload(upload_id: str) -> tuple[str, int]:
    """Remove an upload."""
    uploads.remove(context(), writer(), upload_id)
    return "", 204


@routes.get("/<upload_id>/parts/<int:number>")
@documented({200: answers.PartAddress}, problems=[403, 409, 503])
def get_part(upload_id: str, number: int) -> Response:
    """Tell where a part is to be sent by PUT; `address` is null where that is here."""
    return jsonify(uploads.part_address(context(), writer(), upload_id, number))


@routes.put("/<upload_id>/parts/<int:number>")
@documented(
    {204: None}, body=Media("application/octet-stream", "the part"), headers=["Content-Digest"], problems=[409, 503]
)
def put_part(upload_id: str, number: int) -> tuple[str, int]:
    """Send a part; sending it again replaces it."""
    principal = writer()
    row = uploads.find(context(), principal, upload_id)
    # The body goes to the store piece by piece, whatever other bodies are limited to. One byte more than it may have,
    # since behind a server that ends the stream itself, looking for its end at the limit counts as exceeding it.
    request.max_content_length = uploads.part_size(row, number) + 1
    stream = cast(BinaryIO, request.stream)
    uploads.put_part(context(), principal, upload_id, number, stream, request.content_length or 0, content_digest())
    return "", 204


@routes.post("/<upload_id>/complete")
@documented({200: answers.Upload}, problems=[409, 503])
def post_complete(upload_id: str) -> Response:
    """Make the parts a file, checked against its digest; repeating it is safe."""
    return jsonify(uploads.complete(context(), writer(), upload_id))
