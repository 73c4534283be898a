"""The verb that tells which networks there are."""

from collections.abc import Mapping
from typing import Any

import typer

from services.commands.common import Columns, Json, console, print_json, print_table, verb

app = typer.Typer()


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
