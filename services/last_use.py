"""When tokens were used last: noted beside requests, never in their way, and at most once a minute for each token."""

import logging
import threading
import time
from queue import Empty, SimpleQueue

from sqlalchemy.exc import SQLAlchemyError

from services import tokens
from services.database import Database

EVERY_SECONDS = 60.0
MOST_KNOWN = 10_000  # tokens; above it all are asked for once more

log = logging.getLogger(__name__)


class LastUse:
    """The tokens that this process saw lately. A thread, begun with the first one, writes them down."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._queue: SimpleQueue[str] = SimpleQueue()
        self._seen: dict[str, float] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def saw(self, token_id: str) -> None:
        """A token was used. It returns at once."""
        now = time.monotonic()
        if now - self._seen.get(token_id, -EVERY_SECONDS) < EVERY_SECONDS:
            return
        with self._lock:
            if len(self._seen) > MOST_KNOWN:
                self._seen.clear()
            self._seen[token_id] = now
            self._queue.put(token_id)
            if self._thread is None:
                self._thread = threading.Thread(target=self._write_down, name="last-use", daemon=True)
                self._thread.start()

    def flush(self) -> None:
        """Writes down what waits. Raises SQLAlchemyError."""
        waiting = set()
        while True:
            try:
                waiting.add(self._queue.get_nowait())
            except Empty:
                break
        if waiting:
            tokens.touch(self._database, sorted(waiting), int(EVERY_SECONDS * 1000))

    def _write_down(self) -> None:
        while True:
            self._queue.put(self._queue.get())  # waits for one
            try:
                self.flush()
            except SQLAlchemyError as error:
                log.warning("when tokens were used last could not be noted: %s", error)
