"""`/settings/audit`: who did what, or was refused, for admins; and whether the trail holds."""

import re
import threading
from datetime import UTC, datetime
from typing import Any

from flask import Blueprint, request, url_for

from bgpanet.errors import InvalidInput
from services import audit
from services.asking import admin, context
from services.audit import Head, Verdict
from services.dashboard.formatting import exact
from services.dashboard.settings import shown
from services.errors import Busy
from services.views import timestamp

routes = Blueprint("audit", __name__, url_prefix="/settings/audit")
AT_ONCE = 50
MOST_VERIFIED = 50_000  # entries by one press of the button: a few seconds
DAY_MS = 24 * 3600 * 1000
LONGEST = 400  # characters of a filter
CURSOR = re.compile(r"[0-9]{1,18}")
FILTERS = ("user", "action", "subject", "project", "since", "until")
WORDS = {
    "session.begin": "signed in",
    "token.create": "made a token",
    "token.revoke": "revoked a token",
    "project.create": "made a project",
    "project.remove": "removed a project",
    "member.put": "set a member's role",
    "member.drop": "took a member out",
    "job.submit": "submitted a job",
    "job.cancel": "cancelled a job",
    "job.pause": "paused a job",
    "job.resume": "resumed a job",
    "job.retry": "tried a job again",
    "job.set_priority": "changed a job's priority",
    "dataset.register": "registered a data set",
    "dataset.remove": "removed a data set",
    "upload.begin": "began an upload",
    "upload.complete": "completed an upload",
    "upload.remove": "deleted an upload",
    "artifact.download": "downloaded a file",
    "model.register": "registered a model",
    "model.import": "imported a model",
    "model.export": "exported a model",
    "model.download": "downloaded a model",
    "model.alias": "moved an alias of a model",
    "model.remove": "removed a model",
    "webhook.create": "made a webhook",
    "webhook.change": "changed a webhook",
    "webhook.remove": "removed a webhook",
    "worker.drain": "had a worker leave",
    "request": "sent a request",
}
"""What each act is called; one that is not here is shown by its name."""
PLACES = {
    "job": ("dashboard.job.page", "job_id"),
    "artifact": ("dashboard.job.page", "job_id"),
    "dataset": ("dashboard.datasets.show", "dataset_id"),
    "webhook": ("dashboard.webhooks.show", "webhook_id"),
    "project": ("dashboard.projects.show", "project_id"),
}
_verifying = threading.Lock()  # it reads much: one at a time in each process


@routes.get("")
def page() -> str:
    return _page(None)


@routes.post("/verify")
def verify() -> str:
    """Reads the trail from where the last press of the button ended, and says whether it holds."""
    admin()
    begin = _head("begin")
    kept = _head("kept")
    if not _verifying.acquire(blocking=False):
        raise Busy("somebody else has the trail verified at this moment; try again in a few seconds")
    try:
        found = audit.verify(context().database, kept, begin, MOST_VERIFIED)
    finally:
        _verifying.release()
    return _page(found)


def _head(name: str) -> Head | None:
    """A head from the form; None where it is empty. Raises InvalidInput."""
    text = request.form.get(name, "").strip()
    if not text:
        return None
    try:
        found = Head.parse(text)
    except ValueError as error:
        raise InvalidInput.one(name, str(error)) from None
    if found.number >= 2**63:
        raise InvalidInput.one(name, "its number is too large")
    return found


def _page(verdict: Verdict | None) -> str:
    admin()
    asked = {name: request.args.get(name, "").strip()[:LONGEST] for name in FILTERS}
    items, following, problems = _found(asked)
    return shown(
        "settings_audit.html",
        entries=[_entry(item) for item in items],
        next_cursor=following,
        asked=asked,
        rest={name: value for name, value in asked.items() if value},
        problems=problems,
        words=WORDS,
        verdict=verdict,
        kept=request.form.get("kept", "").strip(),
    )


def _found(asked: dict[str, str]) -> tuple[list[dict[str, Any]], int | None, dict[str, str]]:
    """The entries that were asked for, the cursor of the next page, and what is wrong with what was asked, by field."""
    days, problems = {}, {}
    for name in ("since", "until"):
        try:
            days[name] = _ms(asked[name])
        except ValueError:
            problems[name] = "must be a day, such as 2026-03-31"
    if problems:
        return [], None, problems
    cursor = request.args.get("cursor", "")
    items, following = audit.list_entries(
        context().database,
        **{name: asked[name] or None for name in ("user", "action", "subject", "project")},
        since=days["since"],
        until=None if days["until"] is None else days["until"] + DAY_MS,
        before=int(cursor) if CURSOR.fullmatch(cursor) else None,
        limit=AT_ONCE,
    )
    return items, following, {}


def _ms(day: str) -> int | None:
    """When a day begins, UTC; None where none was named. Raises ValueError."""
    return round(datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC).timestamp() * 1000) if day else None


def _entry(item: dict[str, Any]) -> dict[str, Any]:
    """An entry as the page shows it. address: of what it was done to, where that has a page."""
    kind = item["action"].partition(".")[0]
    address = None
    if kind in PLACES and item["subject"] and not item["action"].endswith(".remove"):
        endpoint, argument = PLACES[kind]
        address = url_for(endpoint, **{argument: item["subject"]})
    what = WORDS.get(item["action"], item["action"])
    detail = {name: _told(name, value) for name, value in item["detail"].items() if value is not None}
    return {**item, "at": timestamp(item["at"]), "what": what, "address": address, "detail": detail}


def _told(name: str, value: Any) -> str:
    """A value of an entry's detail in words."""
    if name.endswith("_at") and isinstance(value, int):
        return exact(timestamp(value))
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
