"""Who asks: bearer tokens, and what each role may do."""

from typing import cast

from flask import abort, current_app, g, request

from services import tokens
from services.context import Context
from services.tokens import Principal


def context() -> Context:
    """The parts of the running application."""
    return cast(Context, current_app.extensions["bgpanet"])


def authenticate() -> None:
    """Before every request: 401 without a valid bearer token, 404 for a path that nothing can have."""
    if "\0" in request.path:
        abort(404, "no name has a NUL in it")
    scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
    principal = tokens.verify(context().database, secret.strip()) if scheme.lower() == "bearer" else None
    if principal is None:
        abort(401, "send `Authorization: Bearer TOKEN` with a token that is known and not revoked")
    g.principal = principal


def reader() -> Principal:
    """Who asks."""
    return cast(Principal, g.principal)


def writer() -> Principal:
    """Who asks; 403 for a viewer."""
    if not reader().may_write:
        abort(403, "a viewer's token may only read")
    return reader()


def admin() -> Principal:
    """Who asks; 403 for anyone but an admin."""
    if not reader().is_admin:
        abort(403, "this needs an admin's token")
    return reader()
