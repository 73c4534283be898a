"""Bringing a database to the present schema: `bgpanet migrate`."""

from pathlib import Path

from alembic import command
from alembic.config import Config

import migrations


def config(database_url: str) -> Config:
    """Alembic's configuration for a database."""
    made = Config()
    made.set_main_option("script_location", str(Path(migrations.__file__).parent))
    made.attributes["database_url"] = database_url
    return made


def migrate(database_url: str, revision: str = "head") -> None:
    """Upgrades to a revision. Raises SQLAlchemyError."""
    command.upgrade(config(database_url), revision)
