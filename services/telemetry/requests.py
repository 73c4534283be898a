"""What is counted, named and logged of each HTTP request. `/metrics` tells the counts."""

import logging
import re
import secrets
import time

from flask import Flask, Response, g, request

from services.context import Context
from services.telemetry import catalogue, logs, metrics, tracing
from services.telemetry.from_sql import FromSQL

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
READING = ("GET", "HEAD", "OPTIONS")

log = logging.getLogger(__name__)


def observe(app: Flask, since: float) -> None:
    """Counts, names and logs the requests of an application, and gives it `/metrics`.

    since: when the API was started, by the monotonic clock; counters out of the database begin then.
    """
    context: Context = app.extensions["bgpanet"]
    from_sql = FromSQL(context, since)
    app.before_request(_began)
    app.after_request(_answered)
    app.teardown_request(_left)

    @app.get("/metrics")
    def show_metrics() -> Response:
        return Response(metrics.exposition([from_sql]), content_type="text/plain; version=0.0.4; charset=utf-8")


def request_id() -> str:
    """That of the present request: the caller's `X-Request-ID` where it is a decent one, else a new one."""
    if "request_id" not in g:
        asked = request.headers.get("X-Request-ID", "")
        g.request_id = asked if REQUEST_ID.fullmatch(asked) else secrets.token_hex(16)
    return str(g.request_id)


def _began() -> None:
    g.begun = time.monotonic()
    g.leave_log = logs.bound(request=request_id())
    caller = request.headers.get("traceparent")
    if caller or request.method not in READING:  # whoever looks again and again leaves no trace
        name, told = f"{_method()} {_route()}", {"http.route": _route()}
        g.leave_span = tracing.entered(tracing.span(name, caller, kind="server", **told))


def _answered(response: Response) -> Response:
    response.headers["X-Request-ID"] = request_id()
    seconds = time.monotonic() - g.get("begun", time.monotonic())
    metrics.count(catalogue.HTTP_REQUESTS, route=_route(), method=_method(), status=str(response.status_code))
    metrics.observe(catalogue.HTTP_SECONDS, seconds, route=_route(), method=_method())
    tracing.mark(**{"http.response.status_code": response.status_code, "bgpanet.request_id": request_id()})
    if response.status_code >= 500 or request.method not in READING:
        level = logging.WARNING if response.status_code >= 500 else logging.INFO
        log.log(level, "%s %s %d, %.0f ms", _method(), request.path, response.status_code, 1000 * seconds)
    return response


def _left(error: BaseException | None) -> None:
    for leave in (g.pop("leave_span", None), g.pop("leave_log", None)):
        if leave is not None:
            leave()


def _route() -> str:
    """The template of the route, of which there are a few; a path may be anything."""
    return str(request.url_rule.rule) if request.url_rule is not None else "none"


def _method() -> str:
    return request.method if request.method in METHODS else "other"
