"""Keeping a lease: a thread of its own renews it and writes what the child said, whatever else the worker does."""

import contextvars
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from services import jobs
from services.claims import Batch, Lease
from services.database import Database
from services.errors import StaleAttempt
from services.telemetry import catalogue, metrics

WRITE_SECONDS = 1.0  # between two writes; short leases are renewed more often

log = logging.getLogger(__name__)


class LeaseKeeper(threading.Thread):
    """Renews from `start` to `stop`. `lost`, `cancelled` and `paused` tell what was ordered; `changed` is called when
    one of them changes.

    A database that does not answer is tried again until the lease's time is over; then the lease counts as lost,
    because the scheduler may have given the job to another worker.
    """

    def __init__(self, database: Database, lease: Lease, seconds: float, changed: Callable[[], None]) -> None:
        super().__init__(name=f"lease-{lease.job_id[-8:]}", daemon=True)
        self.lost = False
        self.cancelled = False
        self.paused = False
        self._database, self._lease, self._seconds, self._changed = database, lease, seconds, changed
        self._renewed = time.monotonic()
        self._batch = Batch()
        self._batch_lock = threading.Lock()  # for adding to the batch; never held during a write
        self._write_lock = threading.Lock()  # one write at a time, in order
        self._stopping = threading.Event()
        self._ids = contextvars.copy_context()  # its log lines bear the attempt's ids

    def run(self) -> None:
        self._ids.run(self._keep)

    def _keep(self) -> None:
        while not self._stopping.wait(min(WRITE_SECONDS, self._seconds / 4)):
            self._try_to_write()

    def stop(self) -> None:
        """Stops renewing; the lease is the caller's to end, within its time."""
        self._stopping.set()
        if self.is_alive():
            self.join()

    def progress(self, values: dict[str, Any]) -> None:
        with self._batch_lock:
            self._batch.progress = values

    def metrics(self, rows: list[dict[str, Any]]) -> None:
        with self._batch_lock:
            self._batch.metrics.extend(rows)

    def log(self, level: str, message: str) -> None:
        with self._batch_lock:
            self._batch.logs.append((level, message))

    def flush(self) -> None:
        """Writes what was said so far. Raises StaleAttempt, or SQLAlchemyError with everything kept for later."""
        with self._write_lock:
            with self._batch_lock:
                batch, self._batch = self._batch, Batch()
            try:
                begun = time.monotonic()
                orders = jobs.renew(self._database, self._lease, self._seconds, batch)
            except BaseException:
                with self._batch_lock:
                    self._batch.metrics[:0] = batch.metrics
                    self._batch.logs[:0] = batch.logs
                    self._batch.progress = self._batch.progress or batch.progress
                raise
            self._renewed = begun
        told = self.cancelled, self.paused
        self.cancelled, self.paused = self.cancelled or orders.cancel, orders.pause
        if (self.cancelled, self.paused) != told:
            self._changed()

    def _try_to_write(self) -> None:
        try:
            self.flush()
        except StaleAttempt:
            self._lose("another attempt has the job", "taken")
        except SQLAlchemyError as error:
            log.warning("job %s: the database does not answer: %s", self._lease.job_id, error)
            if time.monotonic() - self._renewed > self._seconds:
                self._lose("the database was silent for longer than the lease", "silence")

    def _lose(self, why: str, label: str) -> None:
        if not self.lost:
            metrics.count(catalogue.LEASES_LOST, why=label)
            log.warning("job %s, attempt %d: lease lost: %s", self._lease.job_id, self._lease.attempt, why)
            self.lost = True
            self._changed()
        self._stopping.set()
