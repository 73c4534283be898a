"""HTTP in and out: parse, call, render. No logic lives here."""

from flask import Blueprint

from services.api import datasets, jobs, system, uploads, webhooks
from services.api.access import authenticate
from services.api.documentation import refuse_unasked
from services.api.problems import handle_errors


def create_blueprint() -> Blueprint:
    """All routes under `/api/v1`; none answers without a token."""
    api = Blueprint("api", __name__, url_prefix="/api/v1")
    api.before_request(authenticate)
    api.before_request(refuse_unasked)
    for part in (jobs, datasets, uploads, webhooks, system):
        api.register_blueprint(part.routes)
    handle_errors(api)
    return api
