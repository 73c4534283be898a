"""A slot that fails its self-test takes no jobs, says why, and heals."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from services import jobs, views
from services.claims import NewJob
from services.context import Context
from services.fleet import Weights
from services.settings import Settings
from services.tokens import Principal
from services.worker import slots
from services.worker.child import ForkServer
from services.worker.devices import Device
from services.worker.selftest import problems
from services.worker.slots import Slot
from tests.support.databases import make_schema

ADMIN = Principal("ada", "admin")


class Computes(ForkServer):
    """A fork server that was found to be in order already: only the other questions are asked in earnest."""

    def __init__(self) -> None:
        pass

    def check(self, timeout: float) -> str | None:
        return None


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    values = {"BGPANET_HOME": str(tmp_path / "home"), "BGPANET_REDIS_URL": "redis://127.0.0.1:1/0"}
    made = Context(Settings.load(values))
    make_schema(made.settings.database_url)
    yield made
    made.database.close()
    made.celery.close()


def test_where_all_is_well_nothing_is_found_and_nothing_is_left(context: Context) -> None:
    assert list(problems(context, Computes())) == []
    assert list(context.store.keys("")) == []
    assert list(context.settings.scratch.iterdir()) == []


def test_everything_that_is_wrong_is_told(context: Context) -> None:
    context.settings.scratch.parent.mkdir(exist_ok=True)
    context.settings.scratch.write_text("no folder")
    with context.database.write() as session:
        session.execute(text("ALTER TABLE workers DROP COLUMN why"))
    scratch, store, database = problems(context, Computes())
    assert scratch.startswith("scratch folder: ")
    assert store.startswith("artifact store: ")
    assert database.startswith("database: ")
    assert "workers.why" in database


@pytest.mark.parametrize("column", ["colour TEXT", "colour TEXT NOT NULL DEFAULT 'red'"])
def test_a_newer_database_will_do_while_what_it_has_more_fills_itself(context: Context, column: str) -> None:
    with context.database.write() as session:
        session.execute(text(f"ALTER TABLE attempts ADD COLUMN {column}"))
    assert list(problems(context, Computes())) == []


def test_a_newer_database_that_wants_more_than_this_version_knows_is_told(context: Context) -> None:
    with context.database.write() as session:
        session.execute(text("DROP TABLE log_lines"))
        known = "id INTEGER PRIMARY KEY, job_id TEXT, attempt INTEGER, at BIGINT, level TEXT, message TEXT"
        session.execute(text(f"CREATE TABLE log_lines ({known}, colour TEXT NOT NULL)"))
    (database,) = problems(context, Computes())
    assert database.startswith("database: log_lines.colour must be filled")


def test_clocks_that_disagree_are_told_and_harm_nothing(
    context: Context, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    here = time.time() - 3600
    monkeypatch.setattr("services.worker.selftest.time.time", lambda: here)
    assert list(problems(context, Computes())) == []
    assert "the database's clock is +36" in caplog.text


def test_a_gpu_that_is_not_there_is_told() -> None:
    server = ForkServer({"CUDA_VISIBLE_DEVICES": "GPU-00000000"})
    try:
        assert server.check(120) is not None
    finally:
        server.close()


def until(look: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 120
    while not (found := look()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def test_an_unfit_slot_takes_no_jobs_says_why_and_heals(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = {"source": {"format": "nothing", "folder": str(tmp_path)}}
    new = NewJob("register", "nothing", source, "d", "ada", registers="nothing")
    job_id, _ = jobs.submit(context.database, new)
    monkeypatch.setattr(slots, "CHECK_AGAIN_SECONDS", (0.1,))
    artifacts = tmp_path / "home" / "artifacts"
    artifacts.parent.mkdir(exist_ok=True)
    artifacts.write_text("no folder")
    slot = Slot(context, "w/0", Device("CPU"), 1, lambda: Weights(reachable=False))
    try:
        work = threading.Thread(target=slot.work, args=(threading.Event(),))
        work.start()  # it keeps its wake-up until the slot is fit
        (row,) = until(lambda: [row for row in views.list_workers(context.database) if row["state"] == "unfit"])
        assert row["why"].startswith("artifact store: ")
        assert views.get_job(context.database, ADMIN, job_id)["state"] == "queued"
        artifacts.unlink()
        work.join(120)
        (row,) = until(lambda: [row for row in views.list_workers(context.database) if row["state"] == "idle"])
        assert row["why"] is None
        assert views.list_attempts(context.database, ADMIN, job_id)[0]["worker"] == "w/0"
    finally:
        slot.close()
    assert views.list_workers(context.database) == []


def test_a_slot_that_is_told_to_leave_during_its_self_test_leaves_at_once(context: Context) -> None:
    slot = Slot(context, "w/0", Device("CPU"), 1, lambda: Weights(reachable=False))
    draining = threading.Event()
    draining.set()
    slot.drain()
    slot.work(draining)
    assert slot.condition.state == "draining"
    slot.close()
    assert views.list_workers(context.database) == []
