"""What gunicorn is told beside its options: `--config python:services.serving`."""

from typing import Any


def post_worker_init(worker: Any) -> None:
    """Streams of a process that is told to stop end at once, so that it does not have to wait for them."""
    worker.wsgi.extensions["bgpanet_streams"].closing = lambda: not worker.alive
