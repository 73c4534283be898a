"""Migrations build exactly the tables that the code uses. `tests/integration` repeats it on PostgreSQL."""

from pathlib import Path

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect

from services.database import Database
from services.migration import config, migrate
from services.tables import Base


def differences(database: Database) -> list[object]:
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, Base.metadata))


def test_a_migrated_database_has_the_tables_of_the_code(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'new.db'}")
    assert differences(database)
    migrate(database.url)
    assert differences(database) == []
    database.close()


def test_migrating_twice_changes_nothing(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'new.db'}")
    migrate(database.url)
    migrate(database.url)
    assert differences(database) == []
    database.close()


def test_migrations_can_be_taken_back(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'new.db'}")
    migrate(database.url)
    command.downgrade(config(database.url), "base")
    assert inspect(database.engine).get_table_names() == ["alembic_version"]
    database.close()
