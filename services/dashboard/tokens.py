"""`/settings/tokens`: one's own tokens, and for admins everyone's; making and revoking them."""

from datetime import UTC, datetime
from typing import Any, Literal

from flask import Blueprint, abort, flash, redirect, request, url_for
from pydantic import Field
from werkzeug.wrappers import Response as BaseResponse

from bgpanet.errors import InvalidInput, Problem
from services import tokens
from services.asking import context, manager, reader
from services.audit import Act, noted
from services.dashboard import plain_forms
from services.dashboard.plain_forms import Filled, Form
from services.dashboard.settings import shown
from services.errors import Forbidden
from services.settings import ROLES
from services.tokens import SCOPES, NewToken, Principal, Role, Scope
from services.views import timestamp

routes = Blueprint("tokens", __name__, url_prefix="/settings/tokens")
AT_ONCE = 50
DAYS = {"7": "in 7 days", "30": "in 30 days", "90": "in 90 days", "365": "in a year"}
WITH_THIS, NEVER = "with-this", "never"
DAY_MS = 24 * 3600 * 1000


class TokenForm(Filled):
    """A token to make. expires: days, or one of two words."""

    name: str = Field(max_length=200)
    user: str | None = Field(None, max_length=200)
    role: Role
    scopes: list[Scope] = Field(default_factory=list)
    expires: Literal["7", "30", "90", "365", "with-this", "never"]


@routes.get("")
def page() -> str:
    preset = {"role": min(("researcher", reader().role), key=ROLES.index), "scopes": ["submit"], "expires": "30"}
    return _page(Form(preset))


@routes.post("")
def create() -> BaseResponse | tuple[str, int]:
    principal = manager()
    if plain_forms.was_sent():
        flash("This token was made already. Its secret is not shown again.")
        return redirect(url_for("dashboard.tokens.page"), code=303)
    try:
        new = _asked(principal, plain_forms.read(TokenForm))
        noting = noted(context().database, Act(principal, "token.create", detail=vars(new)))
        _, secret = tokens.issue(context().database, principal, new, noting)
    except InvalidInput as error:
        return _page(plain_forms.again(TokenForm, error.problems)), 422
    except Forbidden as error:
        return _page(plain_forms.again(TokenForm, [Problem("", str(error))])), 403
    plain_forms.note_sent()
    expires_at = timestamp(new.expires_at)
    return shown("settings_token_made.html", token=new, expires_at=expires_at, secret_value=secret), 201


@routes.post("/<token_id>/revoke")
def revoke(token_id: str) -> BaseResponse:
    principal = reader()
    if not principal.may_manage and token_id != principal.token_id:
        abort(403, "this needs a token with the scope `manage`")
    whose = None if principal.is_admin else principal.user
    tokens.revoke(context().database, token_id, whose, noted(context().database, Act(principal, "token.revoke")))
    flash("It was revoked. Whatever used it is refused from now on.")
    return redirect(url_for("dashboard.tokens.page"), code=303)


def _asked(principal: Principal, form: TokenForm) -> NewToken:
    """What was filled in as a token; one that is left open is one's own."""
    expires_at = principal.expires_at if form.expires == WITH_THIS else None
    if form.expires in DAYS:
        expires_at = round(datetime.now(UTC).timestamp() * 1000) + int(form.expires) * DAY_MS
    return NewToken(
        name=form.name,
        user=form.user or principal.user,
        role=form.role,
        scopes=tuple(scope for scope in SCOPES if scope == "read" or scope in form.scopes),
        expires_at=expires_at,
    )


def _page(form: Form) -> str:
    principal = reader()
    is_all, user = bool(request.args.get("all")), request.args.get("user", "").strip()[:200]
    whose = (user or None) if principal.is_admin else principal.user
    before = request.args.get("cursor")
    rows = tokens.list_tokens(context().database, whose, is_holding=not is_all, before=before, limit=AT_ONCE + 1)
    return shown(
        "settings_tokens.html",
        tokens=[_row(row) for row in rows[:AT_ONCE]],
        next_cursor=rows[AT_ONCE - 1]["id"] if len(rows) > AT_ONCE else None,
        is_all=is_all,
        user=user if principal.is_admin else "",
        form=form,
        once=plain_forms.once(),
        roles={role: role for role in ROLES[: ROLES.index(principal.role) + 1]},
        scopes={scope: scope for scope in SCOPES if scope != "read" and scope in principal.scopes},
        expiries=_expiries(principal),
    )


def _expiries(principal: Principal) -> dict[str, str]:
    """What may be chosen: nothing later than the end of the token that asks."""
    if principal.expires_at is None:
        return {**DAYS, NEVER: "never, until it is revoked"}
    left = principal.expires_at - datetime.now(UTC).timestamp() * 1000
    within = {days: words for days, words in DAYS.items() if int(days) * DAY_MS <= left}
    return {**within, WITH_THIS: "when the token of this session does"}


def _row(row: dict[str, Any]) -> dict[str, Any]:
    """A token as the page shows it. state: how it stands."""
    now = datetime.now(UTC).timestamp() * 1000
    is_over = row["expires_at"] is not None and row["expires_at"] <= now
    state = "revoked" if row["revoked_at"] is not None else "expired" if is_over else "holds"
    times = {name: timestamp(row[name]) for name in ("created_at", "expires_at", "last_used_at", "revoked_at")}
    return {**row, **times, "state": state, "is_session": row["name"] == tokens.SESSION}
