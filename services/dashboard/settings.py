"""`/settings`: what its pages share, and the way to the first of them."""

from typing import Any

from flask import Blueprint, redirect, render_template, url_for
from werkzeug.wrappers import Response as BaseResponse

from services.asking import reader

routes = Blueprint("settings", __name__, url_prefix="/settings")
SECTIONS = (("tokens", "Tokens"), ("projects", "Projects"), ("webhooks", "Webhooks"))
FOR_ADMINS = (("audit", "Audit trail"),)


@routes.get("")
def page() -> BaseResponse:
    return redirect(url_for("dashboard.tokens.page"))


def shown(template: str, **values: Any) -> str:
    """A page below `/settings`, with the way to its neighbours."""
    sections = [*SECTIONS, *(FOR_ADMINS if reader().is_admin else ())]
    return render_template(template, sections=sections, **values)
