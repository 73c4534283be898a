"""Models, workers, tokens, and who one is."""

from dataclasses import asdict
from typing import Any

from flask import Response, jsonify

from bgpanet.catalogue import MODELS
from bgpanet.validation import unknown
from services import tokens, views
from services.api import answers
from services.api.access import admin, context, reader
from services.api.documentation import Section, documented
from services.api.parsing import TokenBody, parse_body
from services.errors import NotFound
from services.views import timestamp

routes = Section(
    "system",
    __name__,
    tags={
        "models": "Networks that can be trained",
        "workers": "Worker slots that were heard of lately",
        "tokens": "Bearer tokens; for admins",
        "me": "Whose token it is",
    },
    paths={"name": ("its name", "bgpanet"), "token_id": ("id of a token", answers.ID)},
)


@routes.get("/me")
@documented({200: answers.Me})
def get_me() -> Response:
    """Tell whose token it is."""
    return jsonify({"user": reader().user, "role": reader().role})


@routes.get("/models")
@documented({200: answers.Page[answers.Model], 304: None}, headers=["If-None-Match"])
def get_models() -> Response:
    """List the networks that can be trained."""
    return jsonify({"items": [{"id": name, **asdict(entry)} for name, entry in MODELS.items()], "next_cursor": None})


@routes.get("/models/<name>")
@documented({200: answers.Model, 304: None}, headers=["If-None-Match"])
def get_model(name: str) -> Response:
    """Show a network."""
    if name not in MODELS:
        raise NotFound(unknown("model", name, [*MODELS]))
    return jsonify({"id": name, **asdict(MODELS[name])})


@routes.get("/workers")
@documented({200: answers.Page[answers.Worker]})
def get_workers() -> Response:
    """List worker slots, by name."""
    return jsonify({"items": views.list_workers(context().database), "next_cursor": None})


@routes.get("/tokens")
@documented({200: answers.Page[answers.Token]}, problems=[403])
def get_tokens() -> Response:
    """List tokens, newest first, without their secrets."""
    admin()
    return jsonify({"items": [_token(row) for row in tokens.list_tokens(context().database)], "next_cursor": None})


@routes.post("/tokens")
@documented({201: answers.NewToken}, body=TokenBody)
def post_token() -> tuple[Response, int]:
    """Make a token."""
    admin()
    body = parse_body(TokenBody)
    token_id, secret = tokens.create(context().database, body.name, body.user, body.role)
    return jsonify({"id": token_id, **body.model_dump(), "token": secret}), 201


@routes.delete("/tokens/<token_id>")
@documented({204: None})
def delete_token(token_id: str) -> tuple[str, int]:
    """Revoke a token."""
    admin()
    tokens.revoke(context().database, token_id)
    return "", 204


def _token(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "created_at": timestamp(row["created_at"]), "revoked_at": timestamp(row["revoked_at"])}
