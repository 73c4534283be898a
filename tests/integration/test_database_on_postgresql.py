"""Connections to a real PostgreSQL: what was cut off while idle is replaced, and reading takes no transaction."""

from collections.abc import Iterator

import pytest
from psycopg.pq import TransactionStatus
from sqlalchemy import text
from sqlalchemy.orm import Session

from services import database as module
from services.database import Database

OTHERS = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


@pytest.fixture
def database(postgres_url: str) -> Iterator[Database]:
    made = Database(postgres_url)
    yield made
    made.close()


def status(session: Session) -> TransactionStatus:
    """Whether the server is in a transaction of this session, after it was asked for something."""
    session.execute(text("SELECT 1"))
    return TransactionStatus(session.connection().connection.driver_connection.info.transaction_status)  # type: ignore[union-attr]


def cut_off(postgres_url: str) -> int:
    """Ends every other connection, as a server that restarts does; how many there were."""
    other = Database(postgres_url)
    try:
        with other.write() as session:
            return len(session.execute(text(f"SELECT pg_terminate_backend(pid, 5000) {OTHERS}")).all())
    finally:
        other.close()


def test_a_connection_that_was_cut_off_while_idle_is_replaced(
    database: Database, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TRUSTED_SECONDS", 0.0)
    database.ping()
    assert cut_off(postgres_url) == 1
    database.ping()
    with database.write() as session:
        session.execute(text("CREATE TEMPORARY TABLE t (a int)"))


def test_reading_takes_no_transaction_unless_it_is_in_parts(database: Database) -> None:
    with database.read() as session:
        assert status(session) == TransactionStatus.IDLE
    with database.write() as session:
        assert status(session) == TransactionStatus.INTRANS
    with database.read(in_parts=True) as session:
        assert status(session) == TransactionStatus.INTRANS
        numbers = text("SELECT generate_series(1, 5)").execution_options(yield_per=2)
        assert list(session.scalars(numbers)) == [1, 2, 3, 4, 5]


def test_what_a_session_reads_later_is_what_was_committed_by_then(database: Database) -> None:
    with database.read() as reading:
        before = status(reading)
        with database.write() as writing:
            writing.execute(text("CREATE TABLE later (a int)"))
            writing.execute(text("INSERT INTO later VALUES (7)"))
        assert (before, reading.scalar(text("SELECT a FROM later"))) == (TransactionStatus.IDLE, 7)
