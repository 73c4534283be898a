"""A worker looks for Redis every two seconds, however long that has been away; what else ends it is an error."""

import logging
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from services.context import Context
from services.settings import Settings
from services.worker.consumer import Consumer


class EnoughSeen(Exception):
    """Ends the attempts to connect."""


def test_the_waits_between_attempts_to_reach_redis_do_not_grow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    slept: list[float] = []

    def note(seconds: float) -> None:
        slept.append(seconds)
        if sum(slept) >= 12:
            raise EnoughSeen

    monkeypatch.setattr("kombu.utils.functional.sleep", note)
    nowhere = {"BGPANET_HOME": str(tmp_path), "BGPANET_REDIS_URL": "redis://127.0.0.1:1/0"}
    app = Context(Settings.load(nowhere)).celery
    consumer = Consumer(print, app=app, controller=SimpleNamespace(use_eventloop=False))
    with caplog.at_level(logging.ERROR), pytest.raises(EnoughSeen):
        consumer.connection_for_read()
    waits = re.findall(r"Trying again in (\S+) seconds", caplog.text)
    assert waits == ["2.00"] * 6
    app.close()


ENDS = """
import logging
import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import services.worker
from celery.worker.state import maybe_shutdown
from services.context import Context
from services.settings import Settings
from services.worker import WorkerOptions, run_worker
from services.worker.consumer import Consumer

def ends(consumer):
    if sys.argv[2] == "broken":
        raise RuntimeError("Redis said what Celery does not know")
    os.kill(os.getpid(), signal.SIGTERM)
    while True:
        maybe_shutdown()
        time.sleep(0.01)

logging.basicConfig(level=logging.WARNING)
Consumer.start = ends
nothing = lambda: None
services.worker.Slot = lambda *given: SimpleNamespace(give_back=nothing, drain=nothing)
services.worker.SlotPool = lambda slots: SimpleNamespace(give_back=nothing, drain=nothing, close=nothing)
nowhere = {"BGPANET_HOME": sys.argv[1], "BGPANET_REDIS_URL": "redis://127.0.0.1:1/0"}
run_worker(Context(Settings.load(nowhere)), WorkerOptions(name="w"))
"""


def ended(home: Path, how: str) -> tuple[int, str]:
    done = subprocess.run([sys.executable, "-c", ENDS, str(home), how], capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


def test_a_worker_that_celery_gave_up_does_not_end_as_one_that_was_told_to_leave(tmp_path: Path) -> None:
    """`bgpanet up` starts only that one again: else nobody would work any more."""
    status, told = ended(tmp_path, "broken")
    assert "Redis said what Celery does not know" in told
    assert (status, "ended without being told to" in told) == (1, True)
    status, told = ended(tmp_path, "told to leave")
    assert (status, "ended without being told to" in told) == (0, False), told
