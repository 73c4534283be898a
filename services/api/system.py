"""Workers, and who one is."""

from dataclasses import asdict
from typing import Any

from flask import Response, jsonify

from services import fleet, fleet_use, views
from services.api import answers
from services.api.documentation import Section, documented
from services.api.parsing import UseQuery, parse_query
from services.asking import admin, context, manager, reader
from services.audit import Act, noted
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
    paths={"worker": ("name of a worker, or of one of its slots", "gpu-1")},
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
    return _shown(views.list_workers(context().database))


@routes.get("/workers/use")
@documented({200: answers.Page[answers.WorkerUse]}, query=UseQuery)
def get_worker_use() -> Response:
    """Show how busy worker slots were, by name; two days are kept."""
    asked = parse_query(UseQuery)
    found = fleet_use.history(context().database, asked.hours, asked.points)
    items = [{"name": name, "use": [use and asdict(use) for use in found[name]]} for name in sorted(found)]
    return jsonify({"items": items, "next_cursor": None})


@routes.post("/workers/<path:worker>/drain")
@documented({202: answers.Page[answers.Worker]}, problems=[409])
def post_drain(worker: str) -> tuple[Response, int]:
    """Have a worker leave.

    It hears of it within seconds, then does as on SIGTERM: its jobs write a checkpoint and go back into the queue, and
    its process ends. What started it may start it again. An admin's token with the
    scope `manage` is needed. Answers with its slots.
    """
    manager()
    principal, database = admin(), context().database
    name = fleet.drain(database, worker, principal.user, noted(database, Act(principal, "worker.drain")))
    return _shown([item for item in views.list_workers(database) if item["worker"] == name]), 202


def _shown(items: list[dict[str, Any]]) -> Response:
    """Slots without the jobs that are not to be seen."""
    seen = views.visible_among(context().database, reader(), [item["job"] for item in items if item["job"]])
    return jsonify(
        {
            "items": [{**item, "job": item["job"] if item["job"] in seen else None} for item in items],
            "next_cursor": None,
        }
    )
