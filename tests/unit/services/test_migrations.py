"""Migrations build exactly the tables that the code uses. `tests/integration` repeats it on PostgreSQL."""

from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import delete, inspect, select, text
from sqlalchemy.exc import IntegrityError

from services.database import Database
from services.migration import config, migrate
from services.tables import Base, Dataset, Job, Webhook, Worker


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


def test_what_was_there_before_versions_becomes_the_first_version_and_keeps_its_jobs(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'old.db'}"
    migrate(url, "0001")
    fill_first_tables(url)
    migrate(url)
    check_first_tables(url)
    command.downgrade(config(url), "0001")


def fill_first_tables(url: str) -> None:
    """A data set and a job on it, as the first version wrote them."""
    database = Database(url)
    with database.write() as session:
        session.execute(
            text(
                "INSERT INTO datasets VALUES ('d', 'lesions', 'ham10000', '0', :drawn, '[]', 1, 1, 'lesion', '[]', "
                "'[]', '{}', 'ada', 7)"
            ),
            {"drawn": True},
        )
        values = {"yes": True, "no": False}
        session.execute(
            text(
                "INSERT INTO jobs (id, kind, name, state, dataset_id, spec, resource_class, priority, attempt, losses, "
                "max_attempts, wants_worker, not_before, cancel_requested, progress, summary, created_by, created_at) "
                "VALUES ('j', 'train', 'n', 'queued', 'd', '{}', 'any', 0, 0, 0, 3, :yes, 0, :no, '{}', '{}', 'ada', 0)"
            ),
            values,
        )
    database.close()


def check_first_tables(url: str) -> None:
    """They are what they were, and belong together."""
    database = Database(url)
    with database.read() as session:
        row = session.scalars(select(Dataset)).one()
        assert (row.version, row.state, row.ready_at, row.columns, row.checks) == (1, "ready", 7, [], {})
        assert session.scalars(select(Job.dataset_id)).all() == ["d"]
    with database.write() as session, pytest.raises(IntegrityError):
        session.execute(delete(Dataset))
    database.close()


def test_an_older_worker_can_still_register(tmp_path: Path) -> None:
    """It names the columns that it knows; what it does not tell is as if it had none."""
    database = Database(f"sqlite:///{tmp_path / 'new.db'}")
    migrate(database.url)
    known = "name, host, pid, version, device, resource_classes, figures, started_at, seen_at"
    with database.write() as session:
        values = "'old/0', 'node', 1, '0.0.9', 'CPU', '[\"any\"]', '{}', 1, 1"
        session.execute(text(f"INSERT INTO workers ({known}) VALUES ({values})"))  # noqa: S608
    with database.read() as session:
        (row,) = session.scalars(select(Worker)).all()
    assert (row.labels, row.memory_gb, row.state, row.why) == ([], None, "ready", None)
    database.close()


def test_a_webhook_that_was_there_or_that_an_older_api_makes_is_on(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'new.db'}")
    known = "id, url, states, children, everyone, secret, created_by, created_at"
    for revision in ("0013", "0014"):
        migrate(database.url, revision)
        with database.write() as session:
            values = f"'{revision}', 'https://lab.example.org/', '[]', false, false, 's', 'ada', 1"
            session.execute(text(f"INSERT INTO webhooks ({known}) VALUES ({values})"))  # noqa: S608
    migrate(database.url)
    with database.read() as session:
        assert {row.id: row.active for row in session.scalars(select(Webhook))} == {"0013": True, "0014": True}
    database.close()
