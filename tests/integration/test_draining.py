"""A worker that is told to leave, on SQLite, a folder and a real Redis-protocol server: its job goes back in time."""

import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from bgpanet.data import synthetic
from services import submission, views
from services.settings import Settings
from services.submission import Request
from tests.support.cluster import ADMIN, Cluster, cluster, tiny_spec
from tests.support.registering import register

GRACE_SECONDS = 3.0


@pytest.fixture
def running(tmp_path: Path, valkey_url: str) -> Iterator[Cluster]:
    home = tmp_path / "home"
    settings = Settings.load({"BGPANET_HOME": str(home), "BGPANET_REDIS_URL": valkey_url})
    with cluster(settings, tmp_path) as made:
        yield made


@pytest.mark.timeout(300)
@pytest.mark.parametrize("signals", [1, 2])
def test_a_child_that_does_not_stop_is_killed_after_the_grace_or_a_second_signal_and_its_job_goes_back(
    running: Cluster, tmp_path: Path, signals: int
) -> None:
    grace = GRACE_SECONDS if signals == 1 else 3600
    synthetic.draw(tmp_path / "lesions", lesions=40, seed=3)
    register(running.context, "lesions", tmp_path / "lesions")
    leaving = running.worker("leaving", grace_seconds=grace)
    database = running.context.database
    job, _ = submission.submit(running.context, ADMIN, Request("train", "lesions", tiny_spec(500, patience=500)))

    def seen(state: str) -> bool | None:
        return True if [row["state"] for row in views.list_workers(database)] == [state] else None

    def children() -> list[psutil.Process] | None:
        servers = psutil.Process(leaving.process.pid).children()
        begun = views.list_metrics(database, ADMIN, job["id"])
        return [child for server in servers for child in server.children()] if begun else None

    running.until(lambda: seen("busy"), "the job is taken")
    (child,) = running.until(children, "the training says something")
    child.send_signal(signal.SIGSTOP)  # it hears no wish to stop
    leaving.signal(signal.SIGTERM)
    running.until(lambda: seen("draining"), "it tells that it leaves")
    if signals == 2:
        leaving.signal(signal.SIGTERM)
    assert leaving.process.wait(GRACE_SECONDS + 20) == signals - 1
    child.wait(60)
    assert views.get_job(database, ADMIN, job["id"])["state"] == "queued"
    assert [attempt["outcome"] for attempt in views.list_attempts(database, ADMIN, job["id"])] == ["released"]
    assert signals == 2 or views.list_workers(database) == []
