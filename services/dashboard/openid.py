"""`/login/openid`: signing in through the provider that the settings name."""

import logging
from typing import cast

from authlib.integrations.flask_client import FlaskOAuth2App, OAuthError
from authlib.oauth2.rfc6749.errors import OAuth2Error
from flask import Blueprint, abort, current_app, redirect, render_template, request, session, url_for
from joserfc.errors import JoseError
from requests import RequestException
from werkzeug.wrappers import Response as BaseResponse

from services import openid, tokens
from services.asking import context
from services.dashboard.access import own_path, sign_in
from services.errors import Forbidden
from services.settings import OpenID

routes = Blueprint("openid", __name__, url_prefix="/login/openid")
WRONG = (OAuthError, OAuth2Error, JoseError, RuntimeError, ValueError, KeyError, TypeError)
"""What Authlib raises of an answer, of a token or of a state that is not right."""

log = logging.getLogger(__name__)


@routes.get("")
def begin() -> BaseResponse:
    """Sends the browser to the provider."""
    session["openid_next"] = own_path(request.args.get("next", ""), default=url_for("dashboard.overview.page"))
    try:
        return cast(BaseResponse, _client().authorize_redirect(_back_address()))
    except (*WRONG, RequestException) as error:
        log.error("the OpenID provider cannot be asked: %s", error)
        abort(503, "the sign-in provider does not answer; try again, or sign in with a token")


@routes.get("/back")
def back() -> BaseResponse | str | tuple[str, int]:
    """The browser comes back from the provider.

    The session's cookie is not sent by a browser that comes from another site, so this page first leads to itself.
    """
    if "again" not in request.args:
        return render_template("continue.html", address=f"{request.full_path}&again=1")
    settings = _settings()
    try:
        options = {"iss": {"essential": True, "values": [settings.issuer]}}
        claims = _client().authorize_access_token(claims_options=options).get("userinfo")
        user, role = openid.person(settings, claims or {})
    except (*WRONG, RequestException) as error:
        log.warning("a sign-in by OpenID Connect was refused: %s: %s", type(error).__name__, error)
        return _refused("Signing in did not work; try once more. The server's log has the details.", 401)
    except Forbidden as error:
        log.warning("a sign-in by OpenID Connect was refused: %s", error)
        return _refused(f"{str(error).capitalize()}.", 403)
    target = own_path(str(session.get("openid_next", "")), default=url_for("dashboard.overview.page"))
    sign_in(tokens.for_session(context().database, user, role, settings.session_hours))
    return redirect(target, code=303)


def _client() -> FlaskOAuth2App:
    found = current_app.extensions.get("bgpanet_openid")
    if found is None:
        abort(404, "this service has no sign-in by OpenID Connect")
    return cast(FlaskOAuth2App, found)


def _settings() -> OpenID:
    _client()
    return cast(OpenID, context().settings.openid)


def _back_address() -> str:
    address = url_for("dashboard.openid.back")
    public = context().settings.public_url
    return f"{public}{address}" if public else url_for("dashboard.openid.back", _external=True)


def _refused(problem: str, status: int) -> tuple[str, int]:
    return render_template("login.html", problem=problem), status
