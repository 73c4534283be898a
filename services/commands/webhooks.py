"""`bgpanet webhook`: addresses that are told when jobs end."""

import time
from typing import Annotated, Any
from urllib.parse import quote

import typer

from services.client import Client
from services.commands.common import FAILED, Json, console, print_json, print_table, stop, verb

app = typer.Typer(no_args_is_help=True, help="Addresses that are told when jobs end.")

WebhookId = Annotated[str, typer.Argument(metavar="ID", help="a webhook's id")]
PING_SECONDS = 30.0


@app.command("create")
@verb
def webhook_create(
    url: Annotated[str, typer.Argument(metavar="URL", help="https://host/path, which takes POST")],
    state: Annotated[list[str] | None, typer.Option(help="succeeded, failed or cancelled; repeatable")] = None,
    children: Annotated[bool, typer.Option("--children", help="also of jobs with a parent, such as folds")] = False,
    everyone: Annotated[bool, typer.Option("--everyone", help="of the jobs of all users (admins)")] = False,
    as_json: Json = False,
) -> None:
    """Make a webhook. The secret that signs what it is told is shown this once.

    Example: bgpanet webhook create https://example.org/jobs --state failed
    """
    body: dict[str, Any] = {"url": url, "children": children, "everyone": everyone}
    if state:
        body["states"] = state
    with Client() as client:
        made = client.post("webhooks", body)
    if as_json:
        print_json(made)
        return
    print(f"webhook {made['id']}\nsecret  {made['secret']}")
    console.print(f"Keep the secret: it is not shown again. Try it out: bgpanet webhook ping {made['id']}")


@app.command("list")
@verb
def webhook_list(as_json: Json = False) -> None:
    """Webhooks of one's own; for an admin, of all.

    Example: bgpanet webhook list
    """
    with Client() as client:
        rows = client.get("webhooks")["items"]
    if as_json:
        print_json(rows)
        return
    columns: dict[str, Any] = {name: lambda row, name=name: row[name] for name in ("id", "url", "created_by")}
    columns["state"] = lambda row: "on" if row["active"] else "off"
    columns["told of"] = lambda row: ", ".join(row["states"])
    columns["children"] = lambda row: "yes" if row["children"] else ""
    columns["everyone"] = lambda row: "yes" if row["everyone"] else ""
    print_table(rows, columns)


@app.command("show")
@verb
def webhook_show(webhook_id: WebhookId, as_json: Json = False) -> None:
    """A webhook, field by field.

    Example: bgpanet webhook show ID
    """
    with Client() as client:
        found = client.get(_path(webhook_id))
    if as_json:
        print_json(found)
        return
    rows = [{"field": name, "value": value} for name, value in found.items() if value is not None]
    print_table(rows, {name: lambda row, name=name: row[name] for name in ("field", "value")})  # type: ignore[misc]


@app.command("change")
@verb
def webhook_change(
    webhook_id: WebhookId,
    on: Annotated[bool | None, typer.Option("--on/--off", help="what was held is tried at once / told nothing")] = None,
    state: Annotated[list[str] | None, typer.Option(help="succeeded, failed or cancelled; repeatable")] = None,
    children: Annotated[
        bool | None, typer.Option("--children/--no-children", help="also of jobs with a parent, such as folds")
    ] = None,
    everyone: Annotated[
        bool | None, typer.Option("--everyone/--no-everyone", help="of the jobs of all users (admins)")
    ] = None,
    as_json: Json = False,
) -> None:
    """Switch a webhook off or on, or change what it hears of; its address stays.

    Example: bgpanet webhook change ID --off
    """
    asked = {"active": on, "states": state or None, "children": children, "everyone": everyone}
    with Client() as client:
        now = client.patch(_path(webhook_id), {name: value for name, value in asked.items() if value is not None})
    if as_json:
        print_json(now)
        return
    print(
        f"webhook {now['id']} is {'on' if now['active'] else 'off'} and hears of jobs that {', '.join(now['states'])}"
    )


@app.command("remove")
@verb
def webhook_remove(webhook_id: WebhookId, as_json: Json = False) -> None:
    """End a webhook, with what it was yet to be told.

    Example: bgpanet webhook remove ID
    """
    with Client() as client:
        client.delete(_path(webhook_id))
    print_json({"removed": webhook_id}) if as_json else print(f"removed {webhook_id}")


@app.command("deliveries")
@verb
def webhook_deliveries(
    webhook_id: WebhookId,
    state: Annotated[str | None, typer.Option(help="waiting, delivered or given_up")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="how many")] = 50,
    as_json: Json = False,
) -> None:
    """What a webhook was told and is yet to be told, newest first.

    Example: bgpanet webhook deliveries ID --state given_up
    """
    query = {"limit": str(limit)} | ({"state": state} if state else {})
    with Client() as client:
        rows = client.get(_path(webhook_id, "deliveries"), query)["items"]
    names = ("id", "event", "job", "state", "tries", "status", "error", "next_at")
    columns: dict[str, Any] = {name: lambda row, name=name: "" if row[name] is None else row[name] for name in names}
    print_json(rows) if as_json else print_table(rows, columns)


@app.command("repeat")
@verb
def webhook_repeat(
    webhook_id: WebhookId,
    delivery_id: Annotated[str, typer.Argument(metavar="DELIVERY", help="a delivery's id")],
    as_json: Json = False,
) -> None:
    """Make a delivery again, under the same id.

    Example: bgpanet webhook repeat ID DELIVERY
    """
    with Client() as client:
        told = client.post(_path(webhook_id, "deliveries", delivery_id, "repeat"))
    print_json(told) if as_json else print(f"{told['id']} is delivered again in a moment")


@app.command("ping")
@verb
def webhook_ping(webhook_id: WebhookId, as_json: Json = False) -> None:
    """Try a webhook out, and say what came of it.

    Example: bgpanet webhook ping ID
    """
    with Client() as client:
        told = client.post(_path(webhook_id, "ping"))
        deadline = time.monotonic() + PING_SECONDS
        while told["state"] == "waiting" and told["error"] is None and time.monotonic() < deadline:
            time.sleep(0.3)
            page = client.get(_path(webhook_id, "deliveries"))["items"]
            told = next((each for each in page if each["id"] == told["id"]), told)
    if as_json:
        print_json(told)
        raise typer.Exit(0 if told["state"] == "delivered" else FAILED)
    if told["state"] != "delivered":
        why = told["error"] or f"nothing was sent within {PING_SECONDS:.0f} s; is a scheduler running?"
        stop(f"{webhook_id}: {why}", FAILED)
    print(f"it answered {told['status']}")


def _path(*parts: str) -> str:
    return "/".join(["webhooks", *[quote(part, safe="") for part in parts]])
