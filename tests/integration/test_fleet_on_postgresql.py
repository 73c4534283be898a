"""Workers on real PostgreSQL: who is asked to leave, how busy they were, and the migration there and back."""

from collections.abc import Iterator

import pytest
from alembic import command
from sqlalchemy import inspect, update

from services import fleet, fleet_use
from services.database import Database
from services.fleet import Member, Weights
from services.fleet_use import KEPT_MS, Use
from services.migration import config, migrate
from services.tables import WorkerUse

MEMBER = Member("w/0", "h", 1, "1", "CPU", ("any", "cpu"))


@pytest.fixture
def database(postgres_url: str) -> Iterator[Database]:
    migrate(postgres_url)
    made = Database(postgres_url)
    yield made
    made.close()


def test_a_worker_is_asked_to_leave_and_its_use_is_told_and_forgotten(database: Database) -> None:
    assert not fleet.beat(database, MEMBER, None, {}, Weights(), use=Use(0.5, None, 25.0))
    fleet.drain(database, "w", "ada")
    assert fleet.beat(database, MEMBER, "j", {}, Weights(), use=Use(1.0, 80.0, 75.0))
    assert fleet_use.history(database, 1, 3) == {"w/0": [None, None, Use(0.75, 80.0, 50.0)]}
    assert fleet_use.forget(database) == 0
    with database.write() as session:
        session.execute(update(WorkerUse).where(WorkerUse.busy == 1.0).values(at=WorkerUse.at - KEPT_MS - 1000))
    assert [fleet_use.forget(database) for _ in range(2)] == [1, 0]
    assert fleet_use.history(database, 1, 1) == {"w/0": [Use(0.5, None, 25.0)]}


def test_the_migration_goes_back_and_forth_beside_workers_that_are_there(database: Database) -> None:
    fleet.beat(database, MEMBER, None, {}, Weights(), use=Use(1.0))
    fleet.drain(database, "w", "ada")
    command.downgrade(config(database.url), "0012")
    assert "worker_use" not in inspect(database.engine).get_table_names()
    migrate(database.url)
    assert fleet_use.history(database, 1, 1) == {}
    assert not fleet.beat(database, MEMBER, None, {}, Weights(), use=Use(1.0))
