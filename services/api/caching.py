"""Conditional requests: what somebody has already is not sent to him again."""

from flask import Response, current_app, request

from services.api.documentation import operation_of

NOT_MODIFIED = 304


def revalidate(response: Response) -> Response:
    """After every request: an answer of a route that declares 304 has an `ETag` of its content, and is left out where
    the request names it."""
    view = current_app.view_functions.get(request.endpoint or "")
    operation = view and operation_of(view)
    is_told = operation is not None and NOT_MODIFIED in operation.answers
    return revalidated(response, "private, no-cache") if is_told and _is_whole(response) else response


def revalidated(response: Response, caching: str) -> Response:
    """The answer with an `ETag`, or 304. caching: what caches may do with it."""
    response.add_etag()
    response.headers["Cache-Control"] = caching
    response.make_conditional(request)
    return response


def _is_whole(response: Response) -> bool:
    return response.status_code == 200 and not response.is_streamed and not response.direct_passthrough
