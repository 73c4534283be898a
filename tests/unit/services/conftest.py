"""A database on SQLite whose clock the test moves."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import insert

from services.database import Database
from services.tables import Dataset
from tests.support.clocked import DATASET, Clock
from tests.support.databases import make_schema


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def database(tmp_path: Path, clock: Clock) -> Iterator[Database]:
    """With the data set `d`."""
    made = Database(f"sqlite:///{tmp_path / 'test.db'}", clock)
    make_schema(made.url)
    with made.write() as session:
        session.execute(insert(Dataset).values(**DATASET))
    yield made
    made.close()
