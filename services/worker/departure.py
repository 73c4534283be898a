"""Leaving in time: what SIGTERM sets going, and what becomes of a worker that is still there afterwards."""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable

LAST_SECONDS = 3.0  # after the grace: to store the last checkpoint and to give jobs back
GIVING_BACK_SECONDS = 1.0

log = logging.getLogger(__name__)


class Departure:
    """Told to leave once, a worker has the grace of its children and a little more; told again, it has no more time.

    `ask` may be called from a signal handler.
    """

    def __init__(self, grace_seconds: float) -> None:
        self._seconds = grace_seconds + LAST_SECONDS
        self._asked, self._urged = threading.Event(), threading.Event()
        self._signalled = threading.Lock()  # held once the worker has sent itself the signal

    def ask(self) -> None:
        """Has the worker leave; again: at once."""
        (self._urged if self._asked.is_set() else self._asked).set()

    def from_afar(self) -> None:
        """The control plane asks: once, and not where somebody here did. Sends this process SIGTERM, for the one way to
        leave that there is."""
        if not self._asked.is_set() and self._signalled.acquire(blocking=False):
            log.warning("asked to leave by way of the database")
            os.kill(os.getpid(), signal.SIGTERM)

    def is_set(self) -> bool:
        """Whether the worker was told to leave."""
        return self._asked.is_set()

    def watch(self, give_back: Callable[[], None]) -> None:
        """Ends this process when it should have left: a store or database that hangs keeps none from it.

        Its children end with it. What `give_back` can't give back in a second is taken back by the scheduler.
        """
        self._asked.wait()
        began = time.monotonic()
        self._urged.wait(self._seconds)
        log.warning("leaving %.0f s after being told; what is unfinished is dropped", time.monotonic() - began)
        giving = threading.Thread(target=give_back, daemon=True)
        giving.start()
        giving.join(GIVING_BACK_SECONDS)
        # Who was asked from afar is not to be started again for being late.
        os._exit(0 if self._signalled.locked() else 1)
