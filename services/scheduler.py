"""What must happen when nobody asks: jobs of dead workers go on, waiting jobs are noticed, old uploads go.

Any number of schedulers may run.
"""

import logging
import threading
import time

from kombu.exceptions import OperationalError
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from services import fleet, jobs, queue, uploads
from services.context import Context

TICK_SECONDS = 1.0
MOST_WAKE_UPS = 64  # at a time; a woken worker goes on while jobs wait
SWEEP_SECONDS = 600.0  # between looks for uploads that nobody needs
FORGET_WORKERS_SECONDS = 3600.0

log = logging.getLogger(__name__)


def run_scheduler(context: Context, stopping: threading.Event) -> None:
    """Ticks until `stopping` is set. A database or Redis that is away is tried again at the next tick."""
    swept = -SWEEP_SECONDS
    while not stopping.wait(TICK_SECONDS):
        try:
            tick(context)
            if time.monotonic() - swept >= SWEEP_SECONDS:
                uploads.sweep(context)
                swept = time.monotonic()
        except (SQLAlchemyError, OperationalError, RedisError, OSError) as error:
            log.warning("tick failed, the next one tries again: %s", error)


def tick(context: Context) -> None:
    """One round."""
    for job_id in jobs.expire_leases(context.database, context.settings.retry_seconds):
        log.warning("job %s was taken back from a silent worker", job_id)
    fleet.forget_lost(context.database, FORGET_WORKERS_SECONDS)
    wake_for_waiting(context)


def wake_for_waiting(context: Context) -> None:
    """Sends wake-ups where jobs wait and no wake-up does: the first one may have been lost, with Redis or a worker."""
    unanswered = queue.unanswered(context.celery)
    for resource_class in queue.RESOURCE_CLASSES:
        waiting = jobs.count_waiting(context.database, resource_class)
        if waiting and not unanswered[resource_class]:
            queue.publish(context.celery, resource_class, min(waiting, MOST_WAKE_UPS))
