"""`bgpanet audit`: looking at the audit trail, and whether it holds."""

import json
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any

import typer

from services.client import Client
from services.commands.common import FAILED, Json, print_json, print_table, stop, verb
from services.settings import Settings

app = typer.Typer(no_args_is_help=True, help="Who did what (admins).")


@app.command("list")
@verb
def audit_list(
    user: Annotated[str | None, typer.Option(help="only what this user did")] = None,
    action: Annotated[str | None, typer.Option(help="only this, e.g. job.submit")] = None,
    subject: Annotated[str | None, typer.Option(help="only what was done to this id")] = None,
    project: Annotated[str | None, typer.Option(help="only what was done in this project")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="how many")] = 50,
    as_json: Json = False,
) -> None:
    """The newest entries.

    Example: bgpanet audit list --user ada --action job.submit
    """
    asked = {"user": user, "action": action, "subject": subject, "project": project}
    query = {name: value for name, value in asked.items() if value is not None}
    with Client() as client:
        rows = client.get("audit", {**query, "limit": limit})["items"]
    names = ("number", "at", "user", "action", "subject", "project", "outcome", "detail")
    columns = {name: partial(_cell, name) for name in names}
    print_json(rows) if as_json else print_table(rows, columns)


def _cell(name: str, row: Mapping[str, Any]) -> str:
    return json.dumps(row[name]) if name == "detail" else str(row[name] or "")


@app.command("verify")
@verb
def audit_verify(
    head: Annotated[str | None, typer.Option(help="what an earlier run printed: shows whether the end was cut")] = None,
    as_json: Json = False,
) -> None:
    """Check every entry against its digest, in the database itself (BGPANET_DATABASE_URL).

    Prints the number and digest of the last entry; keep them elsewhere, and give them to a later run as --head.
    Exit status 1 where the trail is broken, and the first entry that is.

    Example: bgpanet audit verify
    """
    from services.audit import Head, verify
    from services.database import Database

    kept = None if head is None else Head.parse(head)
    database = Database(Settings.load().database_url)
    try:
        found = verify(database, kept)
    finally:
        database.close()
    if as_json:
        print_json({"holds": found.broken is None, "head": str(found.head), "broken": found.broken, "why": found.why})
        raise typer.Exit(0 if found.broken is None else FAILED)
    if found.broken is not None:
        stop(f"the audit trail is broken: entry {found.broken} {found.why}", FAILED)
    print(f"{found.head}")
