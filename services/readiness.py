"""Whether a process that serves the API can do its work: `/readyz`.

The parts are asked beside each other, each for at most `PATIENCE_SECONDS`, and their answers are kept for a moment, so
that however many ask, each part is asked once in that time. A part that never answers is not asked a second time
before it has answered.
"""

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait

from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from services import migration, queue
from services.context import Context
from services.database import Database
from services.errors import StorageError

KEPT_SECONDS = 2.0
PATIENCE_SECONDS = 4.0
AWAY = (SQLAlchemyError, OperationalError, RedisError, StorageError, OSError)


class Unready(Exception):
    """A part answers, and can't be worked with; the text says what to do."""


class Readiness:
    """Asks the parts of one process. `checks` may be called from any thread."""

    def __init__(self, parts: Mapping[str, Callable[[], object]], clock: Callable[[], float] = time.monotonic) -> None:
        self._parts, self._clock = parts, clock
        self._lock = threading.Lock()
        self._known: dict[str, str] = {}
        self._asked_at = -KEPT_SECONDS
        self._threads = ThreadPoolExecutor(len(parts), "ready")
        self._asked: dict[str, Future[str]] = {}

    def checks(self) -> dict[str, str]:
        """Of each part `ok`, or what is wrong with it."""
        with self._lock:
            if self._clock() - self._asked_at >= KEPT_SECONDS:
                self._known = self._ask()
                self._asked_at = self._clock()
            return dict(self._known)

    def _ask(self) -> dict[str, str]:
        for name, part in self._parts.items():
            if name not in self._asked:
                self._asked[name] = self._threads.submit(_state, part)
        done, _ = wait(self._asked.values(), PATIENCE_SECONDS)
        silent = f"no answer for {PATIENCE_SECONDS:.0f} s"
        told = {name: asked.result() if asked in done else silent for name, asked in self._asked.items()}
        self._asked = {name: asked for name, asked in self._asked.items() if asked not in done}
        return {name: told[name] for name in self._parts}


def of(context: Context) -> Readiness:
    """The parts without which the API can do nothing."""
    schema = Schema(context.database)
    return Readiness(
        {
            "database": context.database.ping,
            "schema": schema.check,
            "redis": lambda: queue.unanswered(context.celery),
            "artifacts": lambda: context.store.exists("ready"),
        }
    )


def _state(part: Callable[[], object]) -> str:
    try:
        part()
    except Unready as error:
        return str(error)
    except AWAY as error:
        return type(error).__name__  # its text may hold addresses and names
    return "ok"


class Schema:
    """Whether the migrations that this version brings have been applied. Later ones may have been, too."""

    def __init__(self, database: Database) -> None:
        self._database = database
        scripts = ScriptDirectory.from_config(migration.config(database.url))
        self._ours = {script.revision for script in scripts.walk_revisions()}
        self._heads = set(scripts.get_heads())

    def check(self) -> None:
        """Raises Unready where the database is older than this version, SQLAlchemyError where it does not answer."""
        with self._database.read() as session:
            found = set(MigrationContext.configure(session.connection()).get_current_heads())
        if not found:
            raise Unready("the database has no tables yet; run bgpanet migrate")
        if found <= self._ours and found != self._heads:
            raise Unready(f"the database is at {', '.join(sorted(found))}; run bgpanet migrate")
