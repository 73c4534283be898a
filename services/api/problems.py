"""Errors as RFC 9457 problem documents."""

import logging
from collections.abc import Callable, Iterable
from typing import Any

from flask import Blueprint, Flask, Response, jsonify, request
from sqlalchemy import exc
from werkzeug.exceptions import HTTPException
from werkzeug.routing import RequestRedirect
from werkzeug.wrappers import Response as BaseResponse

from bgpanet.errors import InvalidInput, Problem
from services.errors import Busy, Conflict, Damaged, Forbidden, NoAnswer, NotFound, ServiceError, StorageError
from services.telemetry.requests import request_id

Shown = tuple[str, int]  # a page and its status

log = logging.getLogger(__name__)


def problem(status: int, title: str, detail: str = "", problems: Iterable[Problem] = ()) -> Response:
    """A problem document. `errors` lists every wrong field."""
    body: dict[str, Any] = {"type": "about:blank", "title": title, "status": status, "request_id": request_id()}
    if detail:
        body["detail"] = detail
    if errors := [{"field": item.where, "detail": item.what} for item in problems]:
        body["errors"] = errors
    response = jsonify(body)
    response.status_code = status
    response.content_type = "application/problem+json"
    return response


def handle_errors(target: Blueprint | Flask, page: Callable[[HTTPException], Shown | None] = lambda _: None) -> None:
    """Registers the handlers on a blueprint (its own routes) or an app (everything else). page: what somebody sees in
    a problem's place who asks with a browser; None: the problem."""

    def invalid(error: InvalidInput) -> Response:
        return problem(422, "The request is wrong", f"{len(error.problems)} problem(s)", error.problems)

    def missing(error: NotFound) -> Response:
        return problem(404, "Not found", str(error))

    def forbidden(error: Forbidden) -> Response:
        return problem(403, "Not allowed", str(error))

    def conflict(error: Conflict) -> Response:
        return problem(409, "Conflict", str(error))

    def busy(error: Busy) -> Response:
        response = problem(429, "Too much waits", str(error))
        response.headers["Retry-After"] = "30"
        return response

    def unanswered(error: NoAnswer) -> Response:
        response = problem(504, "No answer in time", str(error))
        response.headers["Retry-After"] = "5"
        return response

    def damaged(error: Damaged) -> Response:
        return problem(422, "What arrived is not what was announced", str(error))

    def storage(error: StorageError) -> Response:
        log.error("storage: %s", error)
        response = problem(503, "The artifact store does not answer", "try again in a moment")
        response.headers["Retry-After"] = "5"
        return response

    def database(error: exc.OperationalError | exc.TimeoutError) -> Response:
        log.error("database: %s", error)
        response = problem(503, "The database does not answer", "try again in a moment")
        response.headers["Retry-After"] = "5"
        return response

    def http(error: HTTPException) -> Response | BaseResponse | Shown:
        if isinstance(error, RequestRedirect):
            return error.get_response()
        if (shown := page(error)) is not None:
            return shown
        response = problem(error.code or 500, error.name, error.description or "")
        if error.code == 401:
            response.headers["WWW-Authenticate"] = "Bearer"
        for name, value in error.get_headers():
            if name in ("Allow", "Content-Range", "Retry-After"):
                response.headers[name] = value
        return response

    def unexpected(error: Exception) -> Response:
        log.exception("unhandled error in %s %s", request.method, request.path, exc_info=error)
        return problem(500, "Internal error", "the server's log has the details")

    target.register_error_handler(InvalidInput, invalid)
    target.register_error_handler(NotFound, missing)
    target.register_error_handler(Forbidden, forbidden)
    target.register_error_handler(Conflict, conflict)
    target.register_error_handler(Busy, busy)
    target.register_error_handler(NoAnswer, unanswered)
    target.register_error_handler(Damaged, damaged)
    target.register_error_handler(StorageError, storage)
    target.register_error_handler(exc.OperationalError, database)
    target.register_error_handler(exc.TimeoutError, database)
    target.register_error_handler(HTTPException, http)
    target.register_error_handler(ServiceError, unexpected)
    target.register_error_handler(Exception, unexpected)
