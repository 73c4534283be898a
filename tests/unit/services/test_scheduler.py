"""Schedulers beside each other, and one whose database is away. `tests/integration` has Redis and PostgreSQL."""

import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from services import scheduler
from services.context import Context
from services.leadership import Leadership
from services.settings import Settings
from tests.support.databases import make_schema


def start(context: Context) -> tuple[threading.Thread, threading.Event]:
    stopping = threading.Event()
    thread = threading.Thread(target=scheduler.run_scheduler, args=(context, stopping))
    thread.start()
    return thread, stopping


def until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in list(caplog.records) if record.name == "services.scheduler"]


def test_of_two_schedulers_one_works_and_the_other_goes_on_when_it_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One of them meets a database that does not answer, and goes on at its next tick."""
    caplog.set_level(logging.INFO)
    worked: list[int] = []
    done = threading.Event()

    def tick(context: Context) -> None:
        worked.append(threading.get_ident())
        if len(worked) == 2:
            raise OperationalError("SELECT 1", {}, Exception("gone"))
        if len(worked) >= 4:
            done.set()

    monkeypatch.setattr(scheduler, "tick", tick)
    monkeypatch.setattr(scheduler, "TICK_SECONDS", 0.02)
    monkeypatch.setattr(scheduler, "Leadership", partial(Leadership, seconds=600.0))  # only who stops loses it
    context = Context(Settings.load({"BGPANET_HOME": str(tmp_path)}))
    make_schema(context.database.url)
    runs = [start(context) for _ in range(2)]
    assert done.wait(120)
    until(lambda: any("stands by" in line for line in told(caplog)))
    leader = worked[-1]
    assert set(worked) == {leader}
    (first, stop_first), (second, stop_second) = sorted(runs, key=lambda run: run[0].ident != leader)
    stop_first.set()
    first.join()
    until(lambda: second.ident in worked)
    stop_second.set()
    second.join()
    assert worked[-1] == second.ident
    assert sum("leads, term 1" in line for line in told(caplog)) == 1
    assert sum("leads, term 2" in line for line in told(caplog)) == 1
    context.database.close()
