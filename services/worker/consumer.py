"""Celery's consumer, which comes back soon after Redis does.

Between its attempts to connect it waits 2 s, then 4, and so on up to half a minute, and for so long an idle worker
would hear of nothing after Redis is there again.
"""

from functools import partial
from typing import Any

from celery.worker import consumer

LONGEST_WAIT_SECONDS = 2


class Consumer(consumer.Consumer):  # type: ignore[misc]
    """Never waits longer than `LONGEST_WAIT_SECONDS` before it tries again to reach Redis."""

    def ensure_connected(self, conn: Any) -> Any:
        """Called by Celery with a connection that is to be made; returns it."""
        conn.ensure_connection = partial(conn.ensure_connection, interval_max=LONGEST_WAIT_SECONDS)
        return super().ensure_connected(conn)
