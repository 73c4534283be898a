"""HTTP in and out: parse, call, render. No logic lives here."""

from collections.abc import Iterator
from importlib import import_module
from pkgutil import iter_modules

from flask import Blueprint

from services.api.access import authenticate
from services.api.caching import revalidate
from services.api.documentation import Section, refuse_unasked
from services.api.problems import handle_errors
from services.asking import note_refusal


def create_blueprint() -> Blueprint:
    """All routes under `/api/v1`; none answers without a token."""
    api = Blueprint("api", __name__, url_prefix="/api/v1")
    api.before_request(authenticate)
    api.before_request(refuse_unasked)
    api.after_request(note_refusal)
    api.after_request(revalidate)
    for section in sections():
        api.register_blueprint(section)
    handle_errors(api)
    return api


def sections() -> Iterator[Section]:
    """The `routes` of every file here that has some."""
    for found in iter_modules(__path__):
        routes = getattr(import_module(f"{__name__}.{found.name}"), "routes", None)
        if isinstance(routes, Section):
            yield routes
