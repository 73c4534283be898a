"""Errors as pages."""

import logging

from flask import Blueprint, render_template, request
from werkzeug.exceptions import HTTPException

from bgpanet.errors import InvalidInput
from services.dashboard.access import recognise
from services.errors import Busy, Conflict, Forbidden, NotFound, StorageError

log = logging.getLogger(__name__)

TITLES = {
    400: "That can't be understood",
    403: "Not allowed",
    404: "Not found",
    405: "Not to be done here",
    413: "Too large",
    429: "Too much at once",
    500: "Something went wrong here",
}
NO_ADDRESS = "No page has this address. It may be misspelt, or what it showed was removed."
NO_METHOD = "This address answers otherwise. Go back, reload the page and try again."


def nowhere(error: HTTPException) -> tuple[str, int] | None:
    """The page of an address that no part of the product has, for browsers; None for whoever else asks."""
    is_browser = request.accept_mimetypes.best_match(["application/json", "text/html"]) == "text/html"
    if request.path.startswith("/api/") or not is_browser or error.code is None:
        return None
    recognise()
    return _page(error.code, *_of_http(error))


def handle_errors(target: Blueprint) -> None:
    """Registers the handlers for what goes wrong on the dashboard's own routes."""

    def missing(error: NotFound) -> tuple[str, int]:
        return _page(404, "Not found", f"{error}, or it is not yours to see.")

    def forbidden(error: Forbidden) -> tuple[str, int]:
        return _page(403, "Not allowed", f"{error}.")

    def invalid(error: InvalidInput) -> tuple[str, int]:
        return _page(400, "That can't be understood", "; ".join(map(str, error.problems)))

    def conflict(error: Conflict) -> tuple[str, int]:
        return _page(409, "That can't be done now", f"{error}.")

    def busy(error: Busy) -> tuple[str, int]:
        return _page(429, "Too much waits", f"{error}.")

    def storage(error: StorageError) -> tuple[str, int]:
        log.error("storage: %s", error)
        return _page(503, "The artifact store does not answer", "Try again in a moment.")

    def http(error: HTTPException) -> tuple[str, int, dict[str, str]]:
        told = _page(error.code or 500, *_of_http(error))
        wait = getattr(error, "retry_after", None)
        return *told, {} if wait is None else {"Retry-After": str(wait)}

    def unexpected(error: Exception) -> tuple[str, int]:
        log.exception("unhandled error in %s %s", request.method, request.path, exc_info=error)
        return _page(500, "Something went wrong here", "The server's log has the details.")

    target.register_error_handler(NotFound, missing)
    target.register_error_handler(Forbidden, forbidden)
    target.register_error_handler(InvalidInput, invalid)
    target.register_error_handler(Conflict, conflict)
    target.register_error_handler(Busy, busy)
    target.register_error_handler(StorageError, storage)
    target.register_error_handler(HTTPException, http)
    target.register_error_handler(Exception, unexpected)


def _page(status: int, title: str, detail: str) -> tuple[str, int]:
    return render_template("error.html", status=status, title=title, detail=detail), status


def _of_http(error: HTTPException) -> tuple[str, str]:
    """Title and detail; what werkzeug says of itself is said in words of ours."""
    own = {404: NO_ADDRESS, 405: NO_METHOD}
    is_told = error.description != type(error).description
    detail = (error.description or "") if is_told else own.get(error.code or 500, error.description or "")
    return TITLES.get(error.code or 500, error.name), detail
