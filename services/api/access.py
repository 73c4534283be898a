"""Bearer tokens: who comes to the API."""

import math

from flask import Response, abort, request

from services import tokens
from services.api.problems import problem
from services.asking import admit, context


def authenticate() -> Response | None:
    """Before every request: 401 without a valid bearer token, 429 with one that asks too often, 404 for a path that
    nothing can have."""
    if "\0" in request.path:
        abort(404, "no name has a NUL in it")
    scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
    principal = tokens.verify(context().database, secret.strip()) if scheme.lower() == "bearer" else None
    if principal is None:
        abort(401, "send `Authorization: Bearer TOKEN` with a token that is known, not revoked and not expired")
    if wait := admit(principal):
        refusal = problem(429, "Too many requests", f"this token may ask again in {wait:.2f} s")
        refusal.headers["Retry-After"] = str(math.ceil(wait))
        return refusal
    return None
