"""Who asks: bearer tokens, and what each role may do."""

import math
from typing import cast

from flask import Response, abort, current_app, g, request

from services import tokens
from services.api.problems import problem
from services.context import Context
from services.last_use import LastUse
from services.refusals import Refusals, is_refusal
from services.throttle import Throttle
from services.tokens import Principal


def context() -> Context:
    """The parts of the running application."""
    return cast(Context, current_app.extensions["bgpanet"])


def authenticate() -> Response | None:
    """Before every request: 401 without a valid bearer token, 429 with one that asks too often, 404 for a path that
    nothing can have."""
    if "\0" in request.path:
        abort(404, "no name has a NUL in it")
    scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
    principal = tokens.verify(context().database, secret.strip()) if scheme.lower() == "bearer" else None
    if principal is None:
        abort(401, "send `Authorization: Bearer TOKEN` with a token that is known, not revoked and not expired")
    g.principal = principal
    if principal.token_id is not None:
        cast(LastUse, current_app.extensions["bgpanet_last_use"]).saw(principal.token_id)
        if wait := cast(Throttle, current_app.extensions["bgpanet_throttle"]).take(principal.token_id):
            refusal = problem(429, "Too many requests", f"this token may ask again in {wait:.2f} s")
            refusal.headers["Retry-After"] = str(math.ceil(wait))
            return refusal
    return None


def note_refusal(response: Response) -> Response:
    """After every request: what somebody may not do is written into the audit trail."""
    principal = g.get("principal")
    if principal is not None and is_refusal(request.method, response.status_code):
        refusals = cast(Refusals, current_app.extensions["bgpanet_refusals"])
        refusals.note(principal, request.method, request.path, response.status_code)
    return response


def reader() -> Principal:
    """Who asks."""
    return cast(Principal, g.principal)


def writer() -> Principal:
    """Who asks; 403 for a viewer, and for a token without the scope `submit`."""
    if not reader().may_write:
        abort(403, "this needs a researcher's token with the scope `submit`")
    return reader()


def manager() -> Principal:
    """Who asks; 403 for a token without the scope `manage`."""
    if not reader().may_manage:
        abort(403, "this needs a token with the scope `manage`")
    return reader()


def admin() -> Principal:
    """Who asks; 403 for anyone but an admin."""
    if not reader().is_admin:
        abort(403, "this needs an admin's token")
    return reader()
