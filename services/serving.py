"""What gunicorn is told beside its options: `--config python:services.serving`."""

import os
import shutil
import time
from typing import Any

from prometheus_client.multiprocess import mark_process_dead

from services import dashboard
from services.settings import Settings
from services.telemetry import logs

STARTED = time.monotonic()  # of the process that all others of this API are forked from


def on_starting(server: Any) -> None:
    """All processes, the first one too, write their logs in the form that is asked for."""
    logs.configure(Settings.load().log_format, server.log.error_log.handlers)


def post_worker_init(worker: Any) -> None:
    """Before a process answers. Its streams will end at once when it is told to stop, which else waits for them."""
    dashboard.prepare(worker.wsgi)
    worker.wsgi.extensions["bgpanet_streams"].closing = lambda: not worker.alive


def child_exit(server: Any, worker: Any) -> None:
    """What a process counted stays in the sums after its end."""
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]


def on_exit(server: Any) -> None:
    """The numbers of all processes go with the last of them."""
    if folder := os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        shutil.rmtree(folder, ignore_errors=True)
