"""Celery's pool of threads, which tells Celery's loop when a thread is free again.

A worker takes a message only while a thread is free (`worker_disable_prefetch`), and the loop looks whether one is when
something wakes it. The end of a task does not: the next message would be taken up to a second later.
"""

import os
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from celery.concurrency.thread import ApplyResult, TaskPool


class Pool(TaskPool):  # type: ignore[misc]
    """Wakes the loop after every task."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)

    def register_with_event_loop(self, loop: Any) -> None:
        """Called by Celery before its loop runs."""
        loop.add_reader(self._read, self._awake)

    def on_apply(self, *arguments: Any, **options: Any) -> ApplyResult:
        """Called by Celery for every task."""
        result = super().on_apply(*arguments, **options)
        result.f.add_done_callback(self._wake)
        return result

    def _wake(self, _: Future[Any]) -> None:
        with suppress(BlockingIOError):  # it has not even seen earlier ones
            os.write(self._write, b"!")

    def _awake(self) -> None:
        with suppress(BlockingIOError):
            os.read(self._read, 4096)
