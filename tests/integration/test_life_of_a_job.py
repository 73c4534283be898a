"""Pause, resume and time limits of real trainings, on SQLite, a folder and a real Redis-protocol server."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bgpanet.data import synthetic
from services import steering, submission, views
from services.settings import Settings
from services.submission import Request
from services.tables import TERMINAL
from tests.support.cluster import ADMIN, Cluster, cluster, tiny_spec
from tests.support.registering import register


@pytest.fixture
def running(tmp_path: Path, valkey_url: str) -> Iterator[Cluster]:
    home = tmp_path / "home"
    settings = Settings(home, f"sqlite:///{home / 'b.db'}", valkey_url, (home / "artifacts").as_uri())
    with cluster(settings, tmp_path) as made:
        made.scheduler()
        lesions = tmp_path / "lesions"
        synthetic.draw(lesions, lesions=40, seed=3)
        register(made.context, "lesions", lesions)
        made.worker("only")
        yield made


def submit(made: Cluster, **changes: Any) -> str:
    spec = tiny_spec(16, checkpoint_seconds=0, keep_every_epochs=5)
    job, _ = submission.submit(made.context, ADMIN, Request(kind="train", dataset="lesions", spec=spec, **changes))
    return str(job["id"])


def look(made: Cluster, job_id: str) -> dict[str, Any]:
    return views.get_job(made.context.database, ADMIN, job_id)


def until(made: Cluster, job_id: str, *states: str) -> dict[str, Any]:
    def seen() -> dict[str, Any] | None:
        job = look(made, job_id)
        return job if job["state"] in states else None

    return made.until(seen, f"job {job_id} is {' or '.join(states)}")


def at_step(made: Cluster, job_id: str, least: int) -> None:
    def seen() -> bool | None:
        found = views.list_checkpoints(made.context.database, ADMIN, job_id)
        return True if found and found[-1]["step"] >= least else None

    made.until(seen, "a checkpoint is recorded")


def digests(made: Cluster, job_id: str) -> dict[str, str]:
    found = {item["name"]: item["sha256"] for item in views.list_artifacts(made.context.database, ADMIN, job_id)}
    kept = [f"epoch-{epoch:04d}.model.safetensors" for epoch in (5, 10, 15)]
    assert [name for name in found if name.startswith("epoch")] == kept
    return {name: found[name] for name in ("model.safetensors", "predictions.parquet", *kept)}


@pytest.mark.timeout(400)
def test_a_paused_training_frees_its_slot_and_goes_on_later_with_the_same_bits(running: Cluster) -> None:
    undisturbed = submit(running)
    assert until(running, undisturbed, *TERMINAL)["state"] == "succeeded"
    paused = submit(running)
    at_step(running, paused, 3)
    steering.pause(running.context, ADMIN, paused)
    until(running, paused, "paused")
    assert look(running, paused)["worker"] is None
    between = submit(running)
    assert until(running, between, *TERMINAL)["state"] == "succeeded"
    assert look(running, paused)["state"] == "paused"
    steering.resume(running.context, ADMIN, paused)
    assert until(running, paused, *TERMINAL)["state"] == "succeeded"
    attempts = views.list_attempts(running.context.database, ADMIN, paused)
    assert [attempt["outcome"] for attempt in attempts] == ["paused", "succeeded"]
    assert attempts[1]["resumed_from_step"] >= 3
    assert digests(running, paused) == digests(running, undisturbed)
    curves = [views.list_metrics(running.context.database, ADMIN, job_id) for job_id in (paused, undisturbed)]
    assert curves[0] == curves[1]


@pytest.mark.timeout(400)
def test_a_time_limit_ends_a_run_after_a_checkpoint_from_which_a_retry_goes_on(running: Cluster) -> None:
    spec = tiny_spec(100_000, checkpoint_seconds=0, patience=100_000)
    request = Request(kind="train", dataset="lesions", spec=spec, time_limit=4)
    job, _ = submission.submit(running.context, ADMIN, request)
    ended = until(running, job["id"], *TERMINAL)
    assert (ended["state"], ended["reason"]) == ("failed", "time_limit")
    reached = views.list_checkpoints(running.context.database, ADMIN, job["id"])[-1]["step"]
    again, created = steering.retry(running.context, ADMIN, job["id"])
    assert created

    def resumed() -> int | None:
        attempts = views.list_attempts(running.context.database, ADMIN, again["id"])
        return attempts[0]["resumed_from_step"] if attempts else None

    assert running.until(resumed, "it goes on") == reached
    steering.cancel(running.context, ADMIN, again["id"])
    until(running, again["id"], "cancelled")


@pytest.mark.timeout(400)
def test_the_folds_of_a_cross_validation_that_is_yet_to_run_answer_together_in_shards(running: Cluster) -> None:
    request = Request(kind="cross_validate", dataset="lesions", spec=tiny_spec(1))
    folds, _ = submission.submit(running.context, ADMIN, request)
    spec = {"model": folds["id"], "batch_size": 16, "shard_images": 16, "precision": "fp32"}
    request = Request(kind="predict", dataset="lesions", spec=spec, after=(folds["id"],))
    job, _ = submission.submit(running.context, ADMIN, request)
    ended = until(running, job["id"], *TERMINAL)
    assert ended["state"] == "succeeded", ended["error"]
    assert ended["children"]["succeeded"] == ended["summary"]["shards"] > 1
    assert ended["summary"]["members"] == 2
    images = views.find_dataset(running.context.database, ADMIN, "lesions").images
    assert ended["summary"]["images"] == images == sum(ended["summary"]["predicted"].values())
    names = {item["name"] for item in views.list_artifacts(running.context.database, ADMIN, job["id"])}
    assert names == {"predictions.csv", "predictions.parquet", "errors.csv"}
