"""Models, workers, tokens, and who one is."""

from dataclasses import asdict
from typing import Any

from flask import Blueprint, Response, jsonify

from bgpanet.catalogue import MODELS
from services import tokens, views
from services.api.access import admin, context, reader
from services.api.parsing import TokenBody, parse_body
from services.errors import NotFound
from services.views import timestamp

routes = Blueprint("system", __name__)


@routes.get("/me")
def get_me() -> Response:
    return jsonify({"user": reader().user, "role": reader().role})


@routes.get("/models")
def get_models() -> Response:
    return jsonify({"items": [{"id": name, **asdict(entry)} for name, entry in MODELS.items()], "next_cursor": None})


@routes.get("/models/<name>")
def get_model(name: str) -> Response:
    if name not in MODELS:
        raise NotFound(f"there is no model {name!r}; known: {', '.join(MODELS)}")
    return jsonify({"id": name, **asdict(MODELS[name])})


@routes.get("/workers")
def get_workers() -> Response:
    return jsonify({"items": views.list_workers(context().database), "next_cursor": None})


@routes.get("/tokens")
def get_tokens() -> Response:
    admin()
    return jsonify({"items": [_token(row) for row in tokens.list_tokens(context().database)], "next_cursor": None})


@routes.post("/tokens")
def post_token() -> tuple[Response, int]:
    admin()
    body = parse_body(TokenBody)
    token_id, secret = tokens.create(context().database, body.name, body.user, body.role)
    return jsonify({"id": token_id, **body.model_dump(), "token": secret}), 201


@routes.delete("/tokens/<token_id>")
def delete_token(token_id: str) -> tuple[str, int]:
    admin()
    tokens.revoke(context().database, token_id)
    return "", 204


def _token(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "created_at": timestamp(row["created_at"]), "revoked_at": timestamp(row["revoked_at"])}
