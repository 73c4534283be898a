"""`/jobs/<id>/stream`: what is new of a job as server-sent events, so that its page asks only when there is something.

The page is told that there are news, and fetches their rendering from here: what a browser shows is made in one place.
"""

from typing import cast

from flask import Blueprint, Response, current_app, request, session

from services import views
from services.asking import context, reader
from services.changes import Place, Story, present
from services.dashboard.access import may_go_on
from services.streams import NoPlace, Places, stream

routes = Blueprint("stream", __name__, url_prefix="/jobs/<job_id>")
RETRY_AFTER = "30"  # seconds


@routes.get("/stream")
def job_stream(job_id: str) -> Response:
    database, principal = context().database, reader()
    place = Place.parse(request.headers.get("Last-Event-ID") or request.args.get("after") or str(Place()))
    views.get_job(database, principal, job_id)
    if place.ended:
        return Response(status=204)
    places = cast(Places, current_app.extensions["bgpanet_streams"])
    try:
        give_back = places.take(str(session["token"]))
    except NoPlace as error:
        refusal = Response(str(error), 429 if error.of_token else 503, {"Retry-After": RETRY_AFTER})
        refusal.mimetype = "text/plain"
        return refusal
    ask = may_go_on(principal)
    story = Story(database, principal, job_id, place)
    response = Response(stream(story, ask, lambda: places.closing()), mimetype="text/event-stream")
    response.headers["X-Accel-Buffering"] = "no"  # a proxy would hold events back
    response.call_on_close(give_back)
    return response


def here(job_id: str) -> str:
    """The place from which the stream goes on of a page that is being made: to be asked for before its content."""
    return str(present(context().database, job_id))
