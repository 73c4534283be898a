"""Engine and sessions, on PostgreSQL and SQLite alike, and the database's own clock.

Times are integers, milliseconds since 1970 in UTC, read from the database's clock (`now_ms`): hosts may disagree
about the time, and arithmetic on leases is the same statement on both databases.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import BigInteger, Connection, Engine, create_engine, event, func, make_url, select, text
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.sql.functions import FunctionElement

Also = Callable[[Session, str], None]
"""What a change does besides, as the last statement of its transaction, told the id of what was changed."""


def nothing(session: Session, subject: str) -> None:
    """For changes that do nothing besides."""


IDLE_MS = 10_000  # after which PostgreSQL ends a transaction in which nothing happens
TRUSTED_SECONDS = 1.0  # that a connection is taken to be there after it was used


class now_ms(FunctionElement[int]):  # noqa: N801 - an SQL function is named like one
    """The database's clock, milliseconds since 1970, as of the statement."""

    type = BigInteger()
    inherit_cache = True


@compiles(now_ms, "postgresql")
def _postgresql(element: now_ms, compiler: Any, **kw: Any) -> str:
    return "CAST(extract(epoch from clock_timestamp()) * 1000 AS bigint)"


@compiles(now_ms, "sqlite")
def _sqlite(element: now_ms, compiler: Any, **kw: Any) -> str:
    return "bgpanet_now_ms()"


def _wall_clock() -> int:
    return time.time_ns() // 1_000_000


class Database:
    """One database. `write()` and `read()` open a session each; what one writes is one transaction.

    On SQLite a writing transaction takes the write lock when it begins, so that it never fails half-way for another
    writer; readers never wait (write-ahead log). `clock` stands in for SQLite's clock in tests.
    """

    def __init__(self, url: str, clock: Callable[[], int] = _wall_clock) -> None:
        self.url = url
        parsed = make_url(url)
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        if self.is_sqlite:
            if parsed.database and parsed.database != ":memory:":
                Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
            self.engine = create_engine(parsed, connect_args={"timeout": 30, "check_same_thread": False})
            _prepare_sqlite(self.engine, clock)
            self._reading: Engine = self.engine.execution_options(bgpanet_read=True)
        else:
            # A process that stands still in the middle of a transaction must not hold up all others.
            idle = {"options": f"-c idle_in_transaction_session_timeout={IDLE_MS}"}
            # Kept open: with fewer that stay, every burst of requests would open some anew.
            self.engine = create_engine(parsed, pool_size=25, max_overflow=0, connect_args=idle)
            _ask_if_there(self.engine)
            # Each statement sees what was committed before it either way; without BEGIN and COMMIT it is asked once.
            self._reading = self.engine.execution_options(isolation_level="AUTOCOMMIT")

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session whose transaction commits at the end of the block, or rolls back on an error."""
        with Session(self.engine, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def read(self, in_parts: bool = False) -> Iterator[Session]:
        """A session that only reads. in_parts: with `yield_per`, for which PostgreSQL needs a transaction."""
        reading = self.engine if in_parts and not self.is_sqlite else self._reading
        with Session(reading, expire_on_commit=False) as session, session.begin():
            yield session

    def one_at_a_time(self, session: Session, what: str) -> None:
        """Until the transaction ends, every other one that asks for the same waits. On SQLite all that write do."""
        if not self.is_sqlite:
            session.execute(select(func.pg_advisory_xact_lock(func.hashtext(f"bgpanet {what}"))))

    def ping(self) -> None:
        """Raises SQLAlchemyError where the database does not answer."""
        with self.read() as session:
            session.execute(text("SELECT 1"))

    def close(self) -> None:
        """Closes every pooled connection."""
        self.engine.dispose()


def _ask_if_there(engine: Engine) -> None:
    """Before a connection of the pool is used it is asked whether its server is still there, as by `pool_pre_ping`, but
    only where it was idle for a while: a busy one would be asked as often as it is used."""

    @event.listens_for(engine, "checkin")
    def left(connection: Any, record: Any) -> None:
        record.info["left"] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def taken(connection: Any, record: Any, proxy: Any) -> None:
        now = time.monotonic()
        if now - record.info.get("left", now) > TRUSTED_SECONDS:
            try:
                engine.dialect.do_ping(connection)
            except engine.dialect.loaded_dbapi.Error as error:
                raise InvalidatePoolError from error


def _prepare_sqlite(engine: Any, clock: Callable[[], int]) -> None:
    @event.listens_for(engine, "connect")
    def connected(connection: Any, record: Any) -> None:
        connection.isolation_level = None  # the driver begins no transactions; `began` does
        connection.create_function("bgpanet_now_ms", 0, clock)
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def began(connection: Connection) -> None:
        reading = connection.get_execution_options().get("bgpanet_read")
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")
