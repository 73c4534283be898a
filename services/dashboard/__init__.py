"""Pages for a browser, from the same functions as the API: rendered here, kept up to date by a small script."""

from flask import Blueprint, Flask, Response, request

from services.asking import note_refusal
from services.dashboard import (
    access,
    assets,
    audit,
    compare,
    datasets,
    formatting,
    job,
    lists,
    models,
    openid,
    overview,
    projects,
    session,
    settings,
    stream,
    submit,
    tokens,
    trying,
    uploads,
    webhooks,
    workers,
)
from services.dashboard.errors import handle_errors

PARTS = (
    session,
    openid,
    overview,
    lists,
    job,
    stream,
    datasets,
    uploads,
    models,
    trying,
    workers,
    compare,
    submit,
    assets,
)
SETTINGS = (settings, tokens, projects, webhooks, audit)
NAVIGATION = (
    ("/overview", "Overview"),
    ("/jobs", "Jobs"),
    ("/datasets", "Data sets"),
    ("/models", "Models"),
    ("/workers", "Workers"),
    ("/settings", "Settings"),
)
"""A page more: a module with `routes` among the parts, a template, and a line here."""


def create_blueprint() -> Blueprint:
    """All pages; only `/login` and `/static` answer without a session."""
    dashboard = Blueprint(
        "dashboard", __name__, template_folder="templates", static_folder="static", static_url_path="/static"
    )
    dashboard.before_request(access.guard)
    dashboard.after_request(_keep_private)
    dashboard.after_request(note_refusal)
    # Of the whole application: an address that nobody has is answered outside of the dashboard.
    dashboard.app_context_processor(access.template_values)
    for part in (*PARTS, *SETTINGS):
        dashboard.register_blueprint(part.routes)
    dashboard.app_context_processor(lambda: {"pages": NAVIGATION})
    for name, function in formatting.FILTERS.items():
        dashboard.add_app_template_filter(function, name)
    handle_errors(dashboard)
    return dashboard


def prepare(app: Flask) -> None:
    """Compiles all templates, so that nobody waits for it who opens a page first."""
    for name in app.jinja_env.list_templates():
        app.jinja_env.get_template(name)


def _keep_private(response: Response) -> Response:
    """After signing out, going back in the browser's history shows nothing."""
    if request.endpoint not in access.STATIC:
        response.headers["Cache-Control"] = "no-store"
    return response
