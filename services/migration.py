"""Bringing a database to the schema of this version, or back to an earlier one's: `bgpanet migrate`."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

import migrations
from services.database import Database


def config(database_url: str) -> Config:
    """Alembic's configuration for a database."""
    made = Config()
    made.set_main_option("script_location", str(Path(migrations.__file__).parent))
    made.attributes["database_url"] = database_url
    return made


def migrate(database_url: str, revision: str = "head") -> None:
    """Upgrades to a revision. A schema of a later version stays as it is: this one works beside it. Raises
    SQLAlchemyError."""
    present = revision_of(database_url)
    if present is None or present in known():
        command.upgrade(config(database_url), revision)


def take_back(database_url: str, revision: str) -> None:
    """Downgrades to an earlier revision. Rows and columns that it has no place for are gone.

    Raises:
        ValueError: there is no such step back from where the database is; nothing was changed.
        SQLAlchemyError: the database is away.
    """
    present, ladder = revision_of(database_url), known()
    if present not in ladder:
        what = "has no tables yet" if present is None else f"is at {present}, which a later version made"
        raise ValueError(f"the database {what}; only the version that made a schema can take it back")
    earlier = ladder[: ladder.index(present)]
    if revision not in earlier:
        there = f"there are {', '.join(earlier)}" if earlier else "there is none"
        raise ValueError(f"{revision!r} is no schema before {present}, where the database is; {there}")
    command.downgrade(config(database_url), revision)


def known() -> list[str]:
    """The revisions that this version knows, the first one first."""
    scripts = ScriptDirectory.from_config(config(""))
    return [script.revision for script in scripts.walk_revisions()][::-1]


def revision_of(database_url: str) -> str | None:
    """Where a database is; None: it has no tables yet. Raises SQLAlchemyError."""
    database = Database(database_url)
    try:
        with database.engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision()
    finally:
        database.close()
