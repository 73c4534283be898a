"""`/api/v1/jobs/{id}/events` as server-sent events."""

from collections.abc import Sequence
from typing import cast

from flask import Response, current_app, request

from services import tokens, views
from services.api.problems import problem
from services.asking import context, reader
from services.changes import Place, Story, Topic
from services.streams import NoPlace, Places, stream

RETRY_AFTER = 10  # seconds


def wants_stream() -> bool:
    """Whether the request would rather have events than JSON."""
    return request.accept_mimetypes["text/event-stream"] > request.accept_mimetypes["application/json"]


def job_stream(job_id: str, topics: Sequence[Topic]) -> Response:
    """A job's events from `Last-Event-ID` on; 204 where the end was told already. topics: those told of; none: all."""
    database, principal = context().database, reader()
    place = Place.parse(request.headers.get("Last-Event-ID") or str(Place()))
    views.get_job(database, principal, job_id)
    if place.ended:
        return Response(status=204)
    secret = request.headers["Authorization"].partition(" ")[2].strip()
    places = cast(Places, current_app.extensions["bgpanet_streams"])
    try:
        give_back = places.take(secret)
    except NoPlace as error:
        refusal = problem(429 if error.of_token else 503, "Too many streams", str(error))
        refusal.headers["Retry-After"] = str(RETRY_AFTER)
        return refusal

    def may_go_on() -> bool:
        return tokens.verify(database, secret) == principal

    story = Story(database, principal, job_id, place, topics)
    response = Response(stream(story, may_go_on, lambda: places.closing()), mimetype="text/event-stream")
    response.headers["X-Accel-Buffering"] = "no"  # a proxy would hold events back
    response.call_on_close(give_back)
    return response
