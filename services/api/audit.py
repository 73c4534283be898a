"""`/api/v1/audit`: who did what, for admins."""

from flask import Response, jsonify

from services import audit
from services.api import answers
from services.api.documentation import Section, documented
from services.api.parsing import AuditQuery, parse_query
from services.asking import admin, context
from services.views import timestamp

routes = Section(
    "audit",
    __name__,
    url_prefix="/audit",
    tags={"audit": "Who did what; for admins"},
)


@routes.get("")
@documented({200: answers.Page[answers.AuditEntry]}, query=AuditQuery, problems=[403])
def get_audit() -> Response:
    """List who did what, or was refused, newest first; for admins.

    Each entry's digest is of its content and of the digest before it; `bgpanet audit verify` checks the whole chain.
    """
    admin()
    query = parse_query(AuditQuery)
    items, before = audit.list_entries(
        context().database,
        user=query.user,
        action=query.action,
        subject=query.subject,
        project=query.project,
        since=None if query.since is None else round(query.since.timestamp() * 1000),
        until=None if query.until is None else round(query.until.timestamp() * 1000),
        before=query.cursor,
        limit=query.limit,
    )
    shown = [{**item, "at": timestamp(item["at"])} for item in items]
    return jsonify({"items": shown, "next_cursor": None if before is None else str(before)})
