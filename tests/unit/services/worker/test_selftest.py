"""A slot that fails its self-test takes no jobs, says why, and heals."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from bgpanet.data import synthetic
from services import jobs, submission, views
from services.claims import NewJob
from services.context import Context
from services.fleet import Weights
from services.order import Offer
from services.settings import Settings
from services.tokens import Principal
from services.worker import slots
from services.worker.child import ForkServer, ForkServerGone
from services.worker.devices import Device
from services.worker.selftest import problems
from services.worker.slots import Slot
from services.worker.supervisor import Attempt
from tests.support.databases import make_schema
from tests.support.registering import register

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


# ── A device that breaks later ───────────────────────────────────────────────────────────────────────────────────

BUS = "RuntimeError: the GPU has fallen off the bus"


class Breaks(Computes):
    """Its device computes until it is told otherwise; None: then it does not even answer."""

    said: str | None = None
    answers = True

    def check(self, timeout: float) -> str | None:
        if not self.answers:
            raise ForkServerGone("the fork server was silent for 120 s")
        return self.said

    def close(self) -> None:
        pass


def waiting_job(context: Context, tmp_path: Path) -> str:
    source = {"source": {"format": "folder", "folder": str(tmp_path)}}
    job_id, _ = jobs.submit(context.database, NewJob("register", "d", source, "d", "ada", registers="d"))
    return job_id


@pytest.mark.parametrize("how", ["status 1", "signal", "stalled"])
@pytest.mark.parametrize("device", ["computes", "is broken", "is silent"])
def test_an_end_that_nobody_foresaw_is_no_fault_of_the_jobs_where_the_device_broke(
    context: Context, tmp_path: Path, how: str, device: str
) -> None:
    job_id = waiting_job(context, tmp_path)
    claim = jobs.claim(context.database, "w", Offer(["any"]), 60)
    assert claim is not None
    server = Breaks()
    server.said, server.answers = BUS if device == "is broken" else None, device != "is silent"
    attempt = Attempt(context, claim, server, 1, threading.Event())
    attempt.stalled = how == "stalled"
    end = attempt._outcome(-11 if how == "signal" else 1)
    assert end is not None
    end()
    job = views.get_job(context.database, ADMIN, job_id)
    (tried,) = views.list_attempts(context.database, ADMIN, job_id)
    if device == "computes":
        assert attempt.broken is None
        reason = {"status 1": "internal", "signal": "worker_lost", "stalled": "stalled"}[how]
        assert (job["state"], tried["outcome"]) == ("queued" if how == "signal" else "failed", reason)
    else:
        assert (job["state"], tried["outcome"]) == ("queued", "worker_lost")
        assert attempt.broken == (BUS if device == "is broken" else "the fork server was silent for 120 s")


def test_a_slot_whose_device_breaks_gives_its_job_back_takes_no_other_and_heals(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Dies(Attempt):
        """Its child ends without a word."""

        def _work(self) -> Any:
            Breaks.said = BUS if self.claim.lease.attempt == 1 else None
            return self._outcome(1)

    monkeypatch.setattr(slots, "ForkServer", lambda environment: Breaks())
    monkeypatch.setattr(slots, "Attempt", Dies)
    monkeypatch.setattr(slots, "CHECK_AGAIN_SECONDS", (0.05,))
    monkeypatch.setattr(Breaks, "said", None)
    job_id = waiting_job(context, tmp_path)
    slot = Slot(context, "w/0", Device("GPU 0"), 1, lambda: Weights(reachable=False))
    draining = threading.Event()

    def state() -> Any:
        return views.get_job(context.database, ADMIN, job_id)["state"]

    def keep_working() -> None:
        while not draining.is_set():
            slot.work(draining)
            time.sleep(0.05)

    work = threading.Thread(target=keep_working)
    work.start()
    try:
        (row,) = until(lambda: [row for row in views.list_workers(context.database) if row["state"] == "unfit"])
        assert row["why"] == f"device: {BUS}"
        time.sleep(1.5)  # longer than the job waits for its second try
        assert (state(), len(views.list_attempts(context.database, ADMIN, job_id))) == ("queued", 1)
        Breaks.said = None
        until(lambda: state() == "failed")
        outcomes = [tried["outcome"] for tried in views.list_attempts(context.database, ADMIN, job_id)]
        assert outcomes == ["worker_lost", "internal"]
    finally:
        draining.set()
        work.join(60)
        slot.close()


def test_a_training_whose_gpu_is_gone_is_not_done_on_the_cpu(context: Context, tmp_path: Path) -> None:
    """A real child of a slot that was given a GPU which does not answer."""
    synthetic.draw(tmp_path / "lesions", lesions=30)
    register(context, "lesions", tmp_path / "lesions")
    spec = {
        "model": "bgpanet_micro",
        "image_size": 32,
        "training": {"epochs": 1},
        "split": {"folds": 2, "validation_folds": 2},
    }
    job, _ = submission.submit(context, ADMIN, submission.Request("train", "lesions", spec))
    claim = jobs.claim(context.database, "w", Offer(["any"]), 60)
    assert claim is not None
    server = ForkServer({"CUDA_VISIBLE_DEVICES": "GPU-00000000"})
    try:
        attempt = Attempt(context, claim, server, 1, threading.Event())
        attempt.run()
    finally:
        server.close()
    assert attempt.broken is not None
    (tried,) = views.list_attempts(context.database, ADMIN, job["id"])
    assert (views.get_job(context.database, ADMIN, job["id"])["state"], tried["outcome"]) == ("queued", "worker_lost")
    told = [event["detail"] for event in views.list_events(context.database, ADMIN, job["id"])]
    assert any("CUDA_VISIBLE_DEVICES is GPU-00000000, and no GPU answers" in detail for detail in told)
