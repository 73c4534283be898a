"""What must happen when nobody asks: jobs of dead workers go on, waiting jobs are noticed, what nobody needs goes.

Any number of schedulers may run; one leads and works, the others stand by. Should two work at once, each lease is
still expired once, each file deleted only while nothing names it, and some workers are woken in vain. Webhooks are told
by all of them.
"""

import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable

from kombu.exceptions import OperationalError
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from services import fleet, jobs, outbox, queue, retention, uploads
from services.context import Context
from services.deliveries import Delivering
from services.errors import StorageError
from services.leadership import Leadership
from services.telemetry import catalogue, metrics

TICK_SECONDS = 1.0
MOST_WAKE_UPS = 64  # at a time; a woken worker goes on while jobs wait
SWEEP_SECONDS = 600.0  # between the end of a sweep and the next
FORGET_WORKERS_SECONDS = 3600.0
AWAY = (SQLAlchemyError, OperationalError, RedisError, OSError)

log = logging.getLogger(__name__)


def run_scheduler(context: Context, stopping: threading.Event) -> None:
    """Ticks until `stopping` is set. A database or Redis that is away is tried again at the next tick."""
    holder = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
    leadership = Leadership(context.database, "scheduler", holder)
    sweeping = Sweeping(context, lambda: leadership.leads and not stopping.is_set(), stopping)
    sweeping.start()
    Delivering(context, stopping).start()
    told = ""
    while not stopping.wait(TICK_SECONDS):
        try:
            term = leadership.hold()
            state = f"stands by, {leadership.present()} leads" if term is None else f"leads, term {term}"
            if state != told:
                log.info("scheduler %s %s", holder, state)
                told = state
            metrics.put(catalogue.SCHEDULER_LEADS, 0 if term is None else 1)
            if term is not None:
                tick(context)
                metrics.count(catalogue.TICKS, result="done")
                metrics.put(catalogue.LAST_TICK, time.time())
        except AWAY as error:
            metrics.count(catalogue.TICKS, result="failed")
            log.warning("tick failed, the next one tries again: %s", error)
    try:
        leadership.give_back()
    except SQLAlchemyError as error:
        log.warning("leadership was not given back, it ends by itself: %s", error)


def tick(context: Context) -> None:
    """One round."""
    for job_id in jobs.expire_leases(context.database, context.settings.retry_seconds):
        metrics.count(catalogue.LEASES_EXPIRED)
        log.warning("job %s was taken back from a silent worker", job_id, extra={"job": job_id})
    fleet.forget_lost(context.database, FORGET_WORKERS_SECONDS)
    wake_for_waiting(context)


def wake_for_waiting(context: Context) -> None:
    """Sends wake-ups where jobs wait and no wake-up does: the first one may have been lost, with Redis or a worker."""
    waiting = jobs.count_waiting(context.database)
    unanswered = queue.unanswered(context.celery, waiting)
    for resource_class, jobs_of_class in waiting.items():
        messages = 0 if unanswered[resource_class] else min(jobs_of_class, MOST_WAKE_UPS)
        if messages and queue.publish(context.celery, resource_class, messages):
            metrics.count(catalogue.WAKE_UPS_SENT, messages, resource_class=resource_class)


class Sweeping(threading.Thread):
    """Sweeps now and then while `leads`, beside the ticks: a store that is slow to answer holds up no expired lease."""

    def __init__(self, context: Context, leads: Callable[[], bool], stopping: threading.Event) -> None:
        super().__init__(name="sweeping", daemon=True)
        self._context, self._leads, self._stopping = context, leads, stopping

    def run(self) -> None:
        due = time.monotonic()
        while not self._stopping.wait(TICK_SECONDS):
            if self._leads() and time.monotonic() >= due:
                try:
                    uploads.sweep(self._context)
                    retention.sweep(self._context, self._leads)
                    outbox.forget(self._context.database, self._context.settings.keep_logs_days)
                    metrics.count(catalogue.SWEEPS, result="done")
                except (*AWAY, StorageError) as error:
                    metrics.count(catalogue.SWEEPS, result="failed")
                    log.warning("sweep failed, the next one goes on: %s", error)
                due = time.monotonic() + SWEEP_SECONDS
