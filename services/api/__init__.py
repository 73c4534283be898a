"""HTTP in and out: parse, call, render. No logic lives here."""

from flask import Blueprint

from services.api import audit, datasets, jobs, projects, system, tokens, uploads
from services.api.access import authenticate, note_refusal
from services.api.documentation import refuse_unasked
from services.api.problems import handle_errors


def create_blueprint() -> Blueprint:
    """All routes under `/api/v1`; none answers without a token."""
    api = Blueprint("api", __name__, url_prefix="/api/v1")
    api.before_request(authenticate)
    api.before_request(refuse_unasked)
    api.after_request(note_refusal)
    for part in (jobs, datasets, uploads, projects, tokens, audit, system):
        api.register_blueprint(part.routes)
    handle_errors(api)
    return api
