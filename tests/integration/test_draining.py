"""A worker that is told to leave, on SQLite, a folder and a real Redis-protocol server: its job goes back in time."""

import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from bgpanet.data import synthetic
from services import submission, tokens, views
from services.settings import Settings
from services.submission import Request
from services.tables import TERMINAL
from services.web import create_app
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


@pytest.mark.timeout(600)
def test_a_worker_that_is_drained_through_the_api_leaves_and_its_job_ends_elsewhere_with_the_same_bits(
    running: Cluster, tmp_path: Path
) -> None:
    synthetic.draw(tmp_path / "lesions", lesions=40, seed=3)
    register(running.context, "lesions", tmp_path / "lesions")
    running.scheduler()
    first, database = running.worker("first"), running.context.database

    def submit() -> str:
        asked = Request("train", "lesions", tiny_spec(120, patience=120, checkpoint_seconds=0))
        return str(submission.submit(running.context, ADMIN, asked)[0]["id"])

    def done(job_id: str) -> bool | None:
        state = views.get_job(database, ADMIN, job_id)["state"]
        assert state not in ("failed", "cancelled"), running.logs()
        return True if state in TERMINAL else None

    def digests(job_id: str) -> dict[str, str]:
        names = ("model.safetensors", "predictions.parquet")
        found = {item["name"]: item["sha256"] for item in views.list_artifacts(database, ADMIN, job_id)}
        return {name: found[name] for name in names}

    undisturbed, moved = submit(), submit()
    running.until(lambda: done(undisturbed), "the first job ends")
    running.until(lambda: views.list_checkpoints(database, ADMIN, moved) or None, "the second one has a checkpoint")
    headers = {"Authorization": f"Bearer {tokens.create(database, 'test', 'ada', 'admin')[1]}"}
    answer = create_app(running.context.settings).test_client().post("/api/v1/workers/first/drain", headers=headers)
    assert (answer.status_code, [row["state"] for row in answer.get_json()["items"]]) == (202, ["draining"])
    assert first.process.wait(60) == 0
    second = running.worker("second")
    running.until(lambda: done(moved), "the job ends elsewhere", 300)
    attempts = [(row["worker"], row["outcome"]) for row in views.list_attempts(database, ADMIN, moved)]
    assert attempts == [("first/0", "released"), ("second/0", "succeeded")]
    assert (views.list_attempts(database, ADMIN, moved)[1]["resumed_from_step"] or 0) > 0
    assert digests(moved) == digests(undisturbed)
    assert [row["name"] for row in views.list_workers(database)] == ["second/0"]
    assert second.process.poll() is None
