"""Verbs that tell what there is to work with: worker slots and networks."""

from collections.abc import Mapping
from typing import Any

import typer

from services.client import Client
from services.commands.common import Columns, Json, console, print_json, print_table, verb

app = typer.Typer()


@app.command()
@verb
def workers(as_json: Json = False) -> None:
    """Worker slots and what they do.

    Example: bgpanet workers
    """
    from services.fleet import Weights

    with Client() as client:
        rows = client.workers()
    names = ("name", "device", "state", "job", "why", "seen_at")
    columns: dict[str, Any] = {n: lambda row, n=n: row[n] or "" for n in names}
    columns["labels"] = lambda row: ", ".join(row["labels"])
    columns["memory"] = lambda row: "" if row["memory_gb"] is None else f"{row['memory_gb']:.4g} GB"
    columns["ImageNet weights"] = lambda row: Weights(**row["weights"])
    print_json(rows) if as_json else print_table(rows, columns)


@app.command()
@verb
def models(as_json: Json = False) -> None:
    """Networks that can be trained.

    Example: bgpanet models --json
    """
    from bgpanet.catalogue import ABSENT, MODELS

    rows: list[Mapping[str, Any]] = [{"id": name, **vars(entry)} for name, entry in MODELS.items()]
    if as_json:
        print_json(rows)
        return
    columns: Columns = {
        "name": lambda row: row["id"],
        "what": lambda row: row["title"],
        "pixels": lambda row: row["image_size"],
        "parameters, M": lambda row: f"{row['parameters']:.3f}",
        "GMAC": lambda row: f"{row['gmac']:.3f}",
        "pretrained": lambda row: "yes" if row["imagenet"] else "no",
    }
    print_table(rows, columns)
    for name, why in ABSENT.items():
        console.print(f"{name} is not available: {why}")
