"""`bgpanet token`: making and revoking tokens."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Annotated, Any

import typer

from services.client import Client
from services.commands.common import Json, print_json, print_table, verb

app = typer.Typer(no_args_is_help=True, help="Make and revoke tokens.")


@app.command("create")
@verb
def token_create(
    name: Annotated[str, typer.Argument(help="what it is for")],
    user: Annotated[str | None, typer.Option(help="whose it is; default: yours")] = None,
    role: Annotated[
        str | None, typer.Option(help="viewer, researcher or admin; default: yours, of an admin researcher")
    ] = None,
    scope: Annotated[
        list[str] | None, typer.Option(help="read, submit, manage; repeatable; default: all you have")
    ] = None,
    expires: Annotated[str | None, typer.Option(help="after so long (90d, 12h, 30m) or at a time (2027-01-31)")] = None,
    as_json: Json = False,
) -> None:
    """Make a token. It is shown this once.

    Example: bgpanet token create nightly --scope read --scope submit --expires 90d
    """
    asked = {"name": name, "user": user, "role": role, "scopes": scope or None, "expires_at": _when(expires)}
    with Client() as client:
        made = client.post("tokens", {field: value for field, value in asked.items() if value is not None})
    print_json(made) if as_json else print(made["token"])


def _when(text: str | None) -> str | None:
    """A time that is told as one, or as how long it is until then. Raises ValueError."""
    if text is None:
        return None
    if match := re.fullmatch(r"(\d{1,5})([dhm])", text):
        unit = {"d": "days", "h": "hours", "m": "minutes"}[match[2]]
        return (datetime.now(UTC) + timedelta(**{unit: int(match[1])})).isoformat()
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.astimezone()).isoformat()


@app.command("list")
@verb
def token_list(as_json: Json = False) -> None:
    """Your tokens, or as an admin everyone's, without their secrets.

    Example: bgpanet token list
    """
    with Client() as client:
        rows = client.get("tokens")["items"]
    names = ("id", "name", "user", "role", "scopes", "created_at", "expires_at", "last_used_at", "revoked_at")
    cells = {name: partial(_cell, name) for name in names}
    print_json(rows) if as_json else print_table(rows, cells)


def _cell(name: str, row: Mapping[str, Any]) -> str:
    value = row[name] or ""
    return ",".join(value) if isinstance(value, list) else str(value)


@app.command("revoke")
@verb
def token_revoke(
    token_id: Annotated[str, typer.Argument(metavar="ID", help="of `bgpanet token list`")], as_json: Json = False
) -> None:
    """End a token at once.

    Example: bgpanet token revoke ID
    """
    with Client() as client:
        client.revoke_token(token_id)
    print_json({"revoked": token_id}) if as_json else print(f"revoked {token_id}")
