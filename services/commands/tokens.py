"""`bgpanet token`: making and revoking tokens."""

from typing import Annotated

import typer

from services.client import Client
from services.commands.common import Json, print_json, print_table, verb

app = typer.Typer(no_args_is_help=True, help="Make and revoke tokens (admins).")


@app.command("create")
@verb
def token_create(
    name: Annotated[str, typer.Argument(help="what it is for")],
    user: Annotated[str, typer.Option(help="whose it is")],
    role: Annotated[str, typer.Option(help="viewer, researcher or admin")] = "researcher",
    as_json: Json = False,
) -> None:
    """Make a token. It is shown this once.

    Example: bgpanet token create "notebook of Ada" --user ada --role researcher
    """
    with Client() as client:
        made = client.post("tokens", {"name": name, "user": user, "role": role})
    print_json(made) if as_json else print(made["token"])


@app.command("list")
@verb
def token_list(as_json: Json = False) -> None:
    """All tokens, without their secrets.

    Example: bgpanet token list
    """
    with Client() as client:
        rows = client.get("tokens")["items"]
    names = ("id", "name", "user", "role", "created_at", "revoked_at")
    print_json(rows) if as_json else print_table(rows, {n: lambda row, n=n: row[n] or "" for n in names})  # type: ignore[misc]


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
