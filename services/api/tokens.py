"""`/api/v1/tokens`: one's own, and for admins everyone's."""

from typing import Any

from flask import Response, abort, jsonify

from services import tokens
from services.api import answers
from services.api.documentation import Section, documented
from services.api.parsing import TokenBody, parse_body
from services.asking import context, manager, reader
from services.audit import Act, noted
from services.tokens import NewToken
from services.views import timestamp

routes = Section(
    "tokens",
    __name__,
    url_prefix="/tokens",
    tags={"tokens": "Bearer tokens: one's own, and for admins everyone's"},
    paths={"token_id": ("id of a token", answers.ID)},
)
TIMES = ("created_at", "expires_at", "last_used_at", "revoked_at")


@routes.get("")
@documented({200: answers.Page[answers.Token]})
def get_tokens() -> Response:
    """List one's own tokens, newest first, without their secrets.

    Admins see everyone's. `last_used_at` is written at most once a minute.
    """
    principal = reader()
    rows = tokens.list_tokens(context().database, None if principal.is_admin else principal.user)
    return jsonify({"items": [_shown(row) for row in rows], "next_cursor": None})


@routes.post("")
@documented({201: answers.NewToken}, body=TokenBody)
def post_token() -> tuple[Response, int]:
    """Make a token.

    It can do no more than the token that asks, and for no longer; admins make some for others, too. The secret is shown
    this once.
    """
    principal, body = manager(), parse_body(TokenBody)
    new = NewToken(
        name=body.name,
        user=body.user or principal.user,
        role=body.role or ("researcher" if principal.is_admin else principal.role),
        scopes=tuple(body.scopes or [scope for scope in tokens.SCOPES if scope in principal.scopes]),
        expires_at=None if body.expires_at is None else int(body.expires_at.timestamp() * 1000),
    )
    detail = {"name": new.name, "user": new.user, "role": new.role, "scopes": new.scopes, "expires_at": new.expires_at}
    noting = noted(context().database, Act(principal, "token.create", detail=detail))
    token_id, secret = tokens.issue(context().database, principal, new, noting)
    made = next(row for row in tokens.list_tokens(context().database, new.user) if row["id"] == token_id)
    return jsonify({**_shown(made), "token": secret}), 201


@routes.delete("/<token_id>")
@documented({204: None})
def delete_token(token_id: str) -> tuple[str, int]:
    """Revoke a token.

    One's own, or as an admin anyone's. What it holds open ends within seconds. A token can always revoke itself.
    """
    principal = reader()
    if not principal.may_manage and token_id != principal.token_id:
        abort(403, "this needs a token with the scope `manage`")
    whose = None if principal.is_admin else principal.user
    tokens.revoke(context().database, token_id, whose, noted(context().database, Act(principal, "token.revoke")))
    return "", 204


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, **{name: timestamp(row[name]) for name in TIMES}}
