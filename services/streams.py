"""Server-sent events of a job, and how many streams of them may be open at once.

A stream keeps a thread of the server busy for as long as it is open, so each process has a number of places for them,
and each token a part of those; ordinary requests have threads of their own (`bgpanet api`).
"""

import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

from sqlalchemy.exc import SQLAlchemyError

from services.changes import Change, Story
from services.errors import NotFound, ServiceError

FIRST_WAIT, LONGEST_WAIT = 0.25, 1.0  # seconds between two looks into the database; longer while nothing is new
HEARTBEAT_SECONDS = 10.0  # so that each end sees that the other one is there
RECONNECT_MS = 1000

log = logging.getLogger(__name__)


class NoPlace(ServiceError):
    """As many streams are open as may be: of this token (`of_token`), or of all."""

    def __init__(self, message: str, *, of_token: bool) -> None:
        super().__init__(message)
        self.of_token = of_token


class Places:
    """The streams that one process may have open. `closing` says that it is about to stop."""

    def __init__(self, most: int, most_of_token: int) -> None:
        self.most, self.most_of_token = most, most_of_token
        self.closing: Callable[[], bool] = lambda: False
        self._lock = threading.Lock()
        self._open: Counter[str] = Counter()

    def take(self, token: str) -> Callable[[], None]:
        """Takes a place; what it returns gives it back, once, however often it is called. Raises NoPlace."""
        with self._lock:
            if self._open[token] >= self.most_of_token:
                told = f"{self.most_of_token} streams of this token are open, which is the limit; close one"
                raise NoPlace(told, of_token=True)
            if self._open.total() >= self.most:
                raise NoPlace(f"{self.most} streams are open, which is the limit; ask without a stream", of_token=False)
            self._open[token] += 1
        given_back = threading.Event()

        def give_back() -> None:
            with self._lock:
                if not given_back.is_set():
                    given_back.set()
                    self._open[token] -= 1
                    self._open += Counter()  # without those that have none

        return give_back


def stream(story: Story, may_go_on: Callable[[], bool], closing: Callable[[], bool]) -> Iterator[str]:
    """A job's changes as server-sent events until its end. It stops earlier, without an `end`, where the job is gone,
    `may_go_on` (asked with every heartbeat) says no, the process is closing, or the database does not answer: whoever
    listens asks again from the last id."""
    yield f"retry: {RECONNECT_MS}\n\n"
    wait, told_at, asked_at = FIRST_WAIT, time.monotonic(), time.monotonic()
    while not closing():
        try:
            is_due = time.monotonic() - asked_at >= HEARTBEAT_SECONDS
            if is_due:
                asked_at = time.monotonic()
                if not may_go_on():
                    return
            changes = story.read(anyway=is_due)
        except NotFound:
            return
        except SQLAlchemyError as error:
            log.warning("a stream ends: the database does not answer: %s", error)
            return
        for change in changes:
            yield _event(change)
        if changes and changes[-1].kind == "end":
            return
        if changes:
            wait, told_at = FIRST_WAIT, time.monotonic()
            continue  # there may be more
        if time.monotonic() - told_at >= HEARTBEAT_SECONDS:
            told_at = time.monotonic()
            yield ": still here\n\n"
        time.sleep(wait)
        wait = min(LONGEST_WAIT, wait * 2)


def _event(change: Change) -> str:
    data = json.dumps(change.data, separators=(",", ":"))
    return f"id: {change.place}\nevent: {change.kind}\ndata: {data}\n\n"
