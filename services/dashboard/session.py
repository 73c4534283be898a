"""`/login` and `/logout`."""

from flask import Blueprint, redirect, render_template, request, session, url_for
from werkzeug.wrappers import Response as BaseResponse

from services import tokens
from services.asking import context
from services.dashboard.access import form_is_ours, own_path, sign_in

routes = Blueprint("session", __name__)


@routes.get("/login")
def login() -> str:
    return render_template("login.html", problem=None)


@routes.post("/login")
def post_login() -> BaseResponse | tuple[str, int]:
    if not form_is_ours():
        return _again("This form had expired. Paste the token once more.", 403)
    if not sign_in(request.form.get("token", "").strip()):
        return _again("This token is unknown or was revoked.", 401)
    target = own_path(request.args.get("next", ""), default=url_for("dashboard.overview.page"))
    return redirect(target, code=303)


@routes.post("/logout")
def logout() -> BaseResponse:
    tokens.end_session(context().database, str(session.get("token", "")))
    session.clear()
    return redirect(url_for("dashboard.session.login"), code=303)


def _again(problem: str, status: int) -> tuple[str, int]:
    return render_template("login.html", problem=problem), status
