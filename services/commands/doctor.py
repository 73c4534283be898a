"""`bgpanet doctor`: what is wrong with an installation."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from services.commands.common import FAILED, Json, console, print_json, print_table, verb
from services.settings import Settings

app = typer.Typer()


@app.command()
@verb
def doctor(
    home: Annotated[Path | None, typer.Option(help="of `bgpanet up`; default: BGPANET_HOME, else ~/.bgpanet")] = None,
    as_json: Json = False,
) -> None:
    """Say what is wrong with this installation and what to do. Exit status 1: something is wrong.

    Example: bgpanet doctor --home ~/.bgpanet
    """
    from services import local
    from services.context import Context
    from services.doctor import examine

    environment = {**os.environ, **({} if home is None else {"BGPANET_HOME": str(home)})}
    context = Context(local.as_running(Settings.load(environment)))
    try:
        with console.status("looking"):
            findings = [asdict(finding) for finding in examine(context)]
    finally:
        context.database.close()
    if as_json:
        print_json(findings)
    else:
        print_table(
            findings,
            {
                "part": lambda row: row["part"],
                "": lambda row: row["verdict"],
                "what": lambda row: row["what"],
                "what to do": lambda row: row["to_do"],
            },
        )
        wrong, doubtful = (sum(row["verdict"] == verdict for row in findings) for verdict in ("wrong", "doubtful"))
        console.print(f"{wrong} wrong, {doubtful} doubtful" if wrong or doubtful else "nothing is wrong")
    if any(row["verdict"] == "wrong" for row in findings):
        raise typer.Exit(FAILED)
