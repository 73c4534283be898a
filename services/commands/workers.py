"""Worker slots: which there are, and having a worker leave."""

from typing import Annotated, Any

import typer

from services.client import Client
from services.commands.common import Json, print_json, print_table, verb
from services.commands.completion import worker_names

app = typer.Typer(invoke_without_command=True)


@app.callback()
@verb
def workers(context: typer.Context, as_json: Json = False) -> None:
    """Worker slots and what they do; `workers drain` has one leave.

    Example: bgpanet workers
    """
    if context.invoked_subcommand is not None:
        return
    with Client() as client:
        _tell(client.workers(), as_json)


@app.command()
@verb
def drain(
    name: Annotated[
        str, typer.Argument(metavar="ID", help="a worker, or one of its slots", autocompletion=worker_names)
    ],
    as_json: Json = False,
) -> None:
    """Have a worker leave: its jobs write a checkpoint and go on elsewhere. An admin's token is needed.

    Example: bgpanet workers drain gpu-1
    """
    with Client() as client:
        _tell(client.drain_worker(name), as_json)


def _tell(rows: list[dict[str, Any]], as_json: bool) -> None:
    from services.fleet import Weights

    names = ("name", "device", "state", "job", "why", "seen_at")
    columns: dict[str, Any] = {n: lambda row, n=n: row[n] or "" for n in names}
    columns["labels"] = lambda row: ", ".join(row["labels"])
    columns["memory"] = lambda row: "" if row["memory_gb"] is None else f"{row['memory_gb']:.4g} GB"
    columns["ImageNet weights"] = lambda row: Weights(**row["weights"])
    print_json(rows) if as_json else print_table(rows, columns)
