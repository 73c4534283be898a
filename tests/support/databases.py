"""Databases that have the present schema, each a copy of one that was migrated once in this process."""

import tempfile
from functools import cache
from pathlib import Path

import pytest
from sqlalchemy import URL, make_url

from services.migration import migrate
from tests.support.servers import fresh_database


def make_schema(url: str) -> None:
    """As `migrate`, of a database that may not be there yet; one on SQLite that is there stays as it is."""
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        migrate(url)
        return
    path = Path(parsed.database or "")
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_migrated_file())


@cache
def _migrated_file() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "migrated.db"
        migrate(f"sqlite:///{path}")
        assert list(path.parent.iterdir()) == [path]  # nothing of it waits in a log
        return path.read_bytes()


def migrated_url(request: pytest.FixtureRequest, folder: Path) -> str:
    """Of a new database with the present schema, on what the fixture's parameter names: `sqlite` or `postgresql`."""
    if request.param == "postgresql":
        return str(request.getfixturevalue("migrated_postgres_url"))
    url = f"sqlite:///{folder / 'test.db'}"
    make_schema(url)
    return url


def migrated_database(server: URL) -> str:
    """The URL of a new database of PostgreSQL with the present schema."""
    return fresh_database(server, _migrated_template(server))


@cache
def _migrated_template(server: URL) -> str:
    url = fresh_database(server)
    migrate(url)
    return make_url(url).database or ""
