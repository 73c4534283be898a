"""The Celery app, its queues, and wake-ups.

A message says that there is work for a resource class, never which: `jobs.claim` decides that. So a lost message
delays a job until the scheduler wakes a worker again, and a doubled one claims nothing.
"""

import logging
from collections.abc import Iterable

from celery import Celery
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from services.settings import Settings

WAKE = "bgpanet.wake"

log = logging.getLogger(__name__)


def queue_name(resource_class: str) -> str:
    """The Redis list in which wake-ups of a resource class wait."""
    return f"bgpanet.{resource_class}"


def make_app(settings: Settings) -> Celery:
    """The Celery app: JSON only, no results, early acknowledgement, no message held back by a busy worker."""
    app = Celery("bgpanet", broker=settings.redis_url)
    app.conf.update(
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_acks_late=False,
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        worker_hijack_root_logger=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "socket_connect_timeout": 2,
            "socket_timeout": 10,
            "health_check_interval": 10,
            "socket_keepalive": True,
            "max_retries": 1,
            "interval_start": 0,
        },
    )
    return app


def publish(app: Celery, resource_class: str, messages: int = 1) -> bool:
    """Wakes as many workers as there are messages. False where Redis does not answer: the scheduler tries again."""
    try:
        for _ in range(messages):
            app.send_task(WAKE, queue=queue_name(resource_class), retry=False)
    except (OperationalError, RedisError, OSError) as error:
        log.warning("no wake-up sent for %r, the scheduler will: %s", resource_class, error)
        return False
    return True


def unanswered(app: Celery, resource_classes: Iterable[str] = ("any",)) -> dict[str, int]:
    """How many wake-ups wait in each class's queue. Raises OperationalError, RedisError or OSError without Redis."""
    with app.connection_for_read() as connection:
        connection.ensure_connection(max_retries=1, interval_start=0, timeout=2)
        client = connection.default_channel.client
        return {name: client.llen(queue_name(name)) for name in resource_classes}
