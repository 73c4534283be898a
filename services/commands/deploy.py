"""Verbs of deployments: making secrets, preparing the services that all parts share, and asking whether one lives."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from services.commands.common import FAILED, stop, verb
from services.settings import Settings

app = typer.Typer()


class Part(StrEnum):
    """A part that serves no requests."""

    WORKER = "worker"
    SCHEDULER = "scheduler"


@app.command()
@verb
def secrets(folder: Annotated[Path, typer.Argument(help="where docker-compose.yml looks for them")]) -> None:
    """Make the passwords, keys and the first admin's token of a deployment, each in a file. Those there are kept.

    Example: bgpanet secrets deploy/secrets
    """
    from services.provision import make_secrets

    made = make_secrets(folder)
    print(f"made in {folder}: {', '.join(made)}" if made else f"{folder} has all of them; none was changed")


@app.command()
@verb
def prepare(
    admin_token_file: Annotated[Path | None, typer.Option(help="holds a token that becomes an admin's")] = None,
) -> None:
    """Bring the database to this version's schema, make the S3 bucket, record the first admin's token. May be repeated.

    Example: bgpanet prepare --admin-token-file secrets/admin-token
    """
    from services.context import Context
    from services.provision import prepare as run

    token = None if admin_token_file is None else admin_token_file.read_text(encoding="utf-8").strip()
    for line in run(Context(Settings.load()), token):
        print(line)


@app.command()
@verb
def alive(part: Annotated[Part, typer.Argument(help="of this host")]) -> None:
    """Tell by the exit status whether a worker of this host, or any scheduler, was heard of lately.

    Example: bgpanet alive worker
    """
    from services.context import Context
    from services.provision import scheduler_leads, worker_lives

    context = Context(Settings.load())
    if not (worker_lives if part is Part.WORKER else scheduler_leads)(context):
        stop(f"no {part} was heard of lately", FAILED)
