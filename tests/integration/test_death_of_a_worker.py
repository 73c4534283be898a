"""A worker that is killed in the middle of a training, on real PostgreSQL, a real Redis-protocol server and real S3."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bgpanet.data import synthetic
from services import jobs, submission, views
from services.settings import Settings
from services.submission import Request
from services.tables import TERMINAL
from tests.support.cluster import ADMIN, Cluster, cluster, tiny_spec
from tests.support.registering import register

LEASE_SECONDS = 3.0


@pytest.fixture
def running(
    tmp_path: Path, postgres_url: str, valkey_url: str, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Cluster]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.secret_key)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    settings = Settings(
        home=tmp_path / "home",
        database_url=postgres_url,
        redis_url=valkey_url,
        artifacts_url=f"s3://{s3.bucket}/artifacts",
        s3_endpoint_url=s3.endpoint_url,
        lease_seconds=LEASE_SECONDS,
    )
    with cluster(settings, tmp_path) as made:
        made.scheduler()
        lesions = tmp_path / "lesions"
        synthetic.draw(lesions, lesions=40, seed=3)
        register(made.context, "lesions", lesions)
        yield made


def submit(made: Cluster, epochs: int = 24) -> str:
    spec = tiny_spec(epochs, checkpoint_seconds=0)
    job, _ = submission.submit(made.context, ADMIN, Request(kind="train", dataset="lesions", spec=spec))
    return str(job["id"])


def look(made: Cluster, job_id: str) -> dict[str, Any]:
    return views.get_job(made.context.database, ADMIN, job_id)


def ended(made: Cluster, job_id: str) -> dict[str, Any]:
    def seen() -> dict[str, Any] | None:
        job = look(made, job_id)
        return job if job["state"] in TERMINAL else None

    job = made.until(seen, f"job {job_id} ends")
    lines = "\n".join(line["message"] for line in views.list_logs(made.context.database, ADMIN, job_id))
    assert job["state"] == "succeeded", f"{job['reason']}: {job['error']}\n{lines}\n{made.logs()}"
    return job


def checkpoint_step(made: Cluster, job_id: str, least: int) -> int | None:
    found = views.list_checkpoints(made.context.database, ADMIN, job_id)
    return found[-1]["step"] if found and found[-1]["step"] >= least else None


def digests(made: Cluster, job_id: str) -> dict[str, str]:
    names = ("model.safetensors", "predictions.parquet", "predictions.csv")
    found = {item["name"]: item["sha256"] for item in views.list_artifacts(made.context.database, ADMIN, job_id)}
    return {name: found[name] for name in names}


def curves(made: Cluster, job_id: str) -> dict[str, list[dict[str, Any]]]:
    return views.list_metrics(made.context.database, ADMIN, job_id)


@pytest.mark.timeout(400)
def test_a_training_whose_worker_is_killed_ends_on_another_with_the_same_bits(running: Cluster) -> None:
    first = running.worker("first")
    undisturbed = submit(running)
    ended(running, undisturbed)

    killed = submit(running)
    running.until(lambda: checkpoint_step(running, killed, 5), "a checkpoint is recorded")
    first.kill()
    held = look(running, killed)
    assert (held["state"], held["worker"]) == ("running", "first/0")
    running.worker("second")
    job = ended(running, killed)

    attempts = views.list_attempts(running.context.database, ADMIN, killed)
    assert [(a["worker"], a["outcome"]) for a in attempts] == [("first/0", "worker_lost"), ("second/0", "succeeded")]
    assert attempts[1]["resumed_from_step"] >= 5
    assert digests(running, killed) == digests(running, undisturbed)
    assert curves(running, killed) == curves(running, undisturbed)
    assert job["summary"] == look(running, undisturbed)["summary"]


@pytest.mark.timeout(400)
def test_a_child_that_is_killed_is_tried_again_from_its_checkpoint_with_the_same_bits(running: Cluster) -> None:
    running.worker("only")
    undisturbed = submit(running)
    ended(running, undisturbed)

    killed = submit(running)
    running.until(lambda: checkpoint_step(running, killed, 5), "a checkpoint is recorded")
    signal_children(running, signal.SIGKILL)
    ended(running, killed)

    outcomes = [a["outcome"] for a in views.list_attempts(running.context.database, ADMIN, killed)]
    assert outcomes == ["worker_lost", "succeeded"]
    assert digests(running, killed) == digests(running, undisturbed)


@pytest.mark.timeout(400)
def test_a_child_that_hangs_is_ended_and_told(running: Cluster) -> None:
    running.worker("only", stall_seconds=8.0)
    hung = submit(running)
    running.until(lambda: checkpoint_step(running, hung, 1), "a checkpoint is recorded")
    signal_children(running, signal.SIGSTOP)
    running.until(lambda: look(running, hung)["state"] in TERMINAL or None, "it is ended")
    job = look(running, hung)
    assert (job["state"], job["reason"]) == ("failed", "stalled")
    ended(running, submit(running, epochs=1))


@pytest.mark.timeout(400)
def test_the_death_of_the_fork_server_costs_one_attempt(running: Cluster) -> None:
    running.worker("only")
    job_id = submit(running)
    running.until(lambda: checkpoint_step(running, job_id, 1), "a checkpoint is recorded")
    for server in fork_servers(running):
        server.kill()
    ended(running, job_id)
    outcomes = [a["outcome"] for a in views.list_attempts(running.context.database, ADMIN, job_id)]
    assert outcomes == ["worker_lost", "succeeded"]


@pytest.mark.timeout(400)
def test_of_a_finished_job_only_its_result_stays_in_the_store(running: Cluster) -> None:
    running.worker("only")
    job_id = submit(running)
    running.until(lambda: checkpoint_step(running, job_id, 5), "a checkpoint is recorded")
    assert len(views.list_checkpoints(running.context.database, ADMIN, job_id)) <= 2
    ended(running, job_id)
    artifacts = views.list_artifacts(running.context.database, ADMIN, job_id)

    def left() -> bool | None:
        keys = list(running.context.store.keys(f"jobs/{job_id}/"))
        return True if len(keys) == len({item["sha256"] for item in artifacts}) else None

    running.until(left, "what is superseded is deleted", 30)
    assert views.list_checkpoints(running.context.database, ADMIN, job_id) == []


def fork_servers(made: Cluster) -> list[Any]:
    """The fork servers of the worker that was started last."""
    import psutil

    worker = psutil.Process(made.processes[-1].process.pid)
    return [p for p in worker.children() if "bgpanet.forkserver" in " ".join(p.cmdline())]


def signal_children(made: Cluster, number: signal.Signals) -> None:
    """A signal for every process that a fork server has forked."""
    runs = [run for server in fork_servers(made) for run in server.children()]
    assert runs
    for run in runs:
        run.send_signal(number)


@pytest.mark.timeout(400)
def test_a_worker_that_is_told_to_leave_hands_its_job_to_another(running: Cluster) -> None:
    leaving = running.worker("leaving")
    job_id = submit(running, epochs=30)
    running.until(lambda: checkpoint_step(running, job_id, 3), "a checkpoint is recorded")
    assert leaving.stop() == 0
    assert look(running, job_id)["state"] == "queued"
    assert views.list_workers(running.context.database) == []
    staying = running.worker("staying")
    running.until(lambda: True if look(running, job_id)["worker"] == "staying/0" else None, "the job goes on")
    attempts = views.list_attempts(running.context.database, ADMIN, job_id)
    assert attempts[0]["outcome"] == "released"
    jobs.cancel(running.context.database, job_id)
    running.until(lambda: True if look(running, job_id)["worker"] is None else None, "it is cancelled", 10)
    assert look(running, job_id)["state"] == "cancelled"
    assert staying.stop() == 0


@pytest.mark.timeout(400)
def test_a_worker_that_sleeps_past_its_lease_leaves_nothing_behind(running: Cluster) -> None:
    sleeper = running.worker("sleeper")
    undisturbed = submit(running)
    ended(running, undisturbed)

    job_id = submit(running)
    running.until(lambda: checkpoint_step(running, job_id, 3), "a checkpoint is recorded")
    sleeper.signal(signal.SIGSTOP)
    running.worker("awake")
    running.until(lambda: True if look(running, job_id)["attempt"] == 2 else None, "another takes it", 60)
    sleeper.signal(signal.SIGCONT)
    ended(running, job_id)
    assert digests(running, job_id) == digests(running, undisturbed)
    assert curves(running, job_id) == curves(running, undisturbed)
    attempts = views.list_attempts(running.context.database, ADMIN, job_id)
    assert [a["outcome"] for a in attempts] == ["worker_lost", "succeeded"]
