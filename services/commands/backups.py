"""`bgpanet backup` and `restore`: everything that an installation knows, elsewhere and back."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from services.commands.common import FAILED, Json, print_json, stop, verb
from services.settings import Settings

app = typer.Typer()


@contextmanager
def _database_errors() -> Iterator[None]:
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except SQLAlchemyError as error:
        stop(f"the database: {str(error).splitlines()[0]}", FAILED)


Folder = Annotated[Path, typer.Argument(metavar="DIR", help="of the backup; holds any number of snapshots")]


@app.command()
@verb
def backup(folder: Folder, as_json: Json = False) -> None:
    """Write all tables, as they are now, and the files that they name into a folder. Nothing has to be stopped.

    Files that are there from earlier backups are not fetched again. Exit status 1: the store lacks files that the
    tables name; the rest was backed up.

    Example: bgpanet backup /backup/bgpanet
    """
    from services.backups import back_up
    from services.context import Context

    with _database_errors():
        made = back_up(Context(Settings.load()), folder)
    if as_json:
        print_json({**asdict(made), "folder": str(made.folder)})
    else:
        print(f"{made.folder}: {made.rows} rows, {made.objects} files of {made.bytes / 1e9:.3f} GB, {made.fetched} new")
    if made.missing:
        listed = "\n".join(made.missing[:20])
        stop(f"{len(made.missing)} files are missing from the store, or damaged there:\n{listed}", FAILED)


@app.command()
@verb
def restore(
    folder: Folder,
    snapshot: Annotated[str | None, typer.Option(help="default: the newest whole one")] = None,
    as_json: Json = False,
) -> None:
    """Restore a backup into an empty database and an empty artifact store, of whatever kind.

    Start no other part before it has ended. Workers and sessions of old are not restored; jobs that ran go on.

    Example: bgpanet restore /backup/bgpanet
    """
    from services.context import Context
    from services.restoring import restore as run

    with _database_errors():
        done = run(Context(Settings.load()), folder, snapshot)
    if as_json:
        print_json(asdict(done))
        return
    print(f"restored {done.snapshot}: {done.rows} rows, {done.objects} files, {done.sent} of them sent now")
    if done.dropped:
        print(f"{done.dropped} checkpoints had no files any more; their jobs go on from earlier ones")
