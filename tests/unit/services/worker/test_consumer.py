"""A worker looks for Redis every two seconds, however long that has been away."""

import logging
import re
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
