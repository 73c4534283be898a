"""Workers, and who one is."""

from flask import Response, jsonify

from services import views
from services.api import answers
from services.api.access import context, reader
from services.api.documentation import Section, documented
from services.tables import personal
from services.tokens import SCOPES
from services.views import timestamp

routes = Section(
    "system",
    __name__,
    tags={
        "workers": "Worker slots that were heard of lately",
        "me": "Whose token it is, and what it may",
    },
)


@routes.get("/me")
@documented({200: answers.Me})
def get_me() -> Response:
    """Tell whose token it is."""
    principal = reader()
    return jsonify(
        {
            "user": principal.user,
            "role": principal.role,
            "scopes": [scope for scope in SCOPES if scope in principal.scopes],
            "token_id": principal.token_id,
            "expires_at": timestamp(principal.expires_at),
            "project": personal(principal.user),
        }
    )


@routes.get("/workers")
@documented({200: answers.Page[answers.Worker]})
def get_workers() -> Response:
    """List worker slots, by name.

    Which job one has is told to whoever sees the job.
    """
    items = views.list_workers(context().database)
    seen = views.visible_among(context().database, reader(), [item["job"] for item in items if item["job"]])
    return jsonify(
        {
            "items": [{**item, "job": item["job"] if item["job"] in seen else None} for item in items],
            "next_cursor": None,
        }
    )
