"""Who looks: a signed session that lives as long as its token, and forms that only our own pages can send."""

import hashlib
import re
import secrets
from collections.abc import Callable
from typing import Any, cast

from flask import abort, current_app, g, redirect, request, session, url_for
from sqlalchemy import select
from werkzeug.urls import iri_to_uri
from werkzeug.wrappers import Response as BaseResponse

from services import tokens
from services.context import Context
from services.database import Database
from services.tables import Token
from services.tokens import ROLES, Principal

STATIC = ("dashboard.static", "dashboard.assets.plotly")
OPEN = (*STATIC, "dashboard.session.login", "dashboard.session.post_login")
# A path on this host and nothing else. Browsers read `//host`, `/\host` and `/<tab>/host` as another host.
OWN_PATH = re.compile(r"/(?![/\\])[!-\[\]-~]*")


def context() -> Context:
    """The parts of the running application."""
    return cast(Context, current_app.extensions["bgpanet"])


def guard() -> BaseResponse | None:
    """Before every request: whoever has no session is sent to sign in, whoever sends a foreign form gets a 403."""
    if any("\0" in text for text in (request.path, *request.args.values(), *request.form.values())):
        abort(400, "text must not contain NUL")
    if request.endpoint in OPEN:
        return None
    principal = _principal()
    if principal is None:
        return redirect(url_for("dashboard.session.login", next=_here()))
    g.principal = principal
    if request.method == "POST" and not form_is_ours():
        abort(403, "this form was not sent from a page of your session; go back, reload the page and try again")
    return None


def sign_in(secret: str) -> bool:
    """Opens a session for a token's secret. False where it is unknown or revoked."""
    if tokens.verify(context().database, secret) is None:
        return False
    session.clear()
    session["token"] = hashlib.sha256(secret.encode()).hexdigest()
    return True


def may_go_on(principal: Principal) -> Callable[[], bool]:
    """Whether the session's token still belongs to who opened a stream; may be asked after the request."""
    digest, database = session.get("token"), context().database
    return lambda: _owner(database, digest) == principal


def _principal() -> Principal | None:
    """Whom the session's token belongs to; None where there is none, or it was revoked since."""
    return _owner(context().database, session.get("token"))


def _owner(database: Database, digest: object) -> Principal | None:
    if not isinstance(digest, str):
        return None
    with database.read() as sql:
        token = sql.scalar(select(Token).where(Token.digest == digest, Token.revoked_at.is_(None)))
    return None if token is None else Principal(token.user, next(role for role in ROLES if role == token.role))


def reader() -> Principal:
    """Who looks."""
    return cast(Principal, g.principal)


def writer() -> Principal:
    """Who looks; 403 for a viewer."""
    if not reader().may_write:
        abort(403, "a viewer's token may only read")
    return reader()


def csrf_token() -> str:
    """What every form carries, and no other site can know."""
    return cast(str, session.setdefault("csrf", secrets.token_urlsafe(32)))


def form_is_ours() -> bool:
    """Whether the form that was sent came from a page of this session."""
    return secrets.compare_digest(request.form.get("csrf", "").encode(), csrf_token().encode())


def own_path(target: str, default: str) -> str:
    """`target` where it is a path on this host, else `default`: nobody is sent elsewhere after signing in."""
    return target if OWN_PATH.fullmatch(target) else default


def template_values() -> dict[str, Any]:
    """What every template knows."""
    return {"me": g.get("principal"), "csrf_token": csrf_token}


def _here() -> str | None:
    """Where to come back to; None where it was a form that was sent."""
    return iri_to_uri(request.full_path.rstrip("?")) if request.method == "GET" else None
