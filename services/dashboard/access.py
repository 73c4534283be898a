"""Who looks: a signed session that lives as long as its token, and forms that only our own pages can send."""

import contextlib
import math
import re
import secrets
from collections.abc import Callable, Iterator
from typing import Any, cast

from flask import abort, g, redirect, request, session, url_for
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.datastructures import MultiDict
from werkzeug.urls import iri_to_uri
from werkzeug.wrappers import Response as BaseResponse

from services import audit, tokens
from services.asking import admit, context
from services.audit import Act
from services.database import Database
from services.tokens import Principal
from services.trials import MOST_FORM_BYTES

STATIC = ("dashboard.static", "dashboard.assets.plotly")
OPEN = (
    *STATIC,
    "dashboard.session.login",
    "dashboard.session.post_login",
    "dashboard.openid.begin",
    "dashboard.openid.back",
)
READING = ("GET", "HEAD", "OPTIONS")
LARGE = {"dashboard.trying.post": MOST_FORM_BYTES}  # bytes of forms that may be larger than others, for who may write
# A path on this host and nothing else. Browsers read `//host`, `/\host` and `/<tab>/host` as another host.
OWN_PATH = re.compile(r"/(?![/\\])[!-\[\]-~]*")


def guard() -> BaseResponse | None:
    """Before every request: whoever has no session is sent to sign in, whoever sends a foreign form gets a 403."""
    _refuse_nul(request.path, *_texts(request.args))
    if request.endpoint in OPEN:
        _refuse_nul(*_texts(request.form))
        return None
    principal = _principal()
    if principal is None:
        return redirect(url_for("dashboard.session.login", next=_here()))
    if wait := admit(principal):
        abort(429, f"this token may ask again in {wait:.2f} s", retry_after=math.ceil(wait))
    if principal.may_write:
        request.max_content_length = LARGE.get(request.endpoint or "", request.max_content_length)
    if request.method == "POST":  # a part of an upload is read by its route
        _refuse_nul(*_texts(request.form))
    if request.method not in READING and not form_is_ours():
        abort(403, "this form was not sent from a page of your session; go back, reload the page and try again")
    return None


def _texts(values: MultiDict[str, str]) -> Iterator[str]:
    """All that stands in an address or a form, also where a name stands there several times."""
    for name, texts in values.lists():
        yield from (name, *texts)


def _refuse_nul(*texts: str) -> None:
    if any("\0" in text for text in texts):
        abort(400, "text must not contain NUL")


def sign_in(secret: str) -> bool:
    """Opens a session for a token's secret. False where it is unknown, revoked or expired."""
    principal = tokens.verify(context().database, secret)
    if principal is None:
        return False
    audit.note(context().database, Act(principal, "session.begin"))
    session.clear()
    session["token"] = tokens.digest_of(secret)
    return True


def may_go_on(principal: Principal) -> Callable[[], bool]:
    """Whether the session's token still belongs to who opened a stream; may be asked after the request."""
    digest, database = session.get("token"), context().database
    return lambda: _owner(database, digest) == principal


def _principal() -> Principal | None:
    """Whom the session's token belongs to; None where there is none, or it has ended since."""
    return _owner(context().database, session.get("token"))


def _owner(database: Database, digest: object) -> Principal | None:
    return tokens.verify_digest(database, digest) if isinstance(digest, str) else None


def csrf_token() -> str:
    """What every form carries, and no other site can know."""
    return cast(str, session.setdefault("csrf", secrets.token_urlsafe(32)))


def form_is_ours() -> bool:
    """Whether what was sent came from a page of this session: a form, or by a script with what its forms carry."""
    sent = request.form.get("csrf", "") if request.method == "POST" else request.headers.get("X-CSRF", "")
    return secrets.compare_digest(sent.encode(), csrf_token().encode())


def own_path(target: str, default: str) -> str:
    """`target` where it is a path on this host, else `default`: nobody is sent elsewhere after signing in."""
    return target if OWN_PATH.fullmatch(target) else default


def recognise() -> None:
    """Says who looks where no guard has asked: on the page of an address that no part of the product has. A database
    that does not answer is no reason to fail here: the page is then that of somebody unknown."""
    with contextlib.suppress(SQLAlchemyError):
        if principal := _principal():
            g.principal = principal


def template_values() -> dict[str, Any]:
    """What every template knows."""
    return {"me": g.get("principal"), "csrf_token": csrf_token}


def _here() -> str | None:
    """Where to come back to; None where it was a form that was sent."""
    return iri_to_uri(request.full_path.rstrip("?")) if request.method == "GET" else None
