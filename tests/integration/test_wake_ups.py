"""No accepted job is lost with Redis's content, and a queue that is away delays work but loses none."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis
from sqlalchemy import insert

from services import jobs, queue, scheduler, submission, views
from services.claims import NewJob
from services.context import Context
from services.database import Database
from services.order import Offer
from services.settings import Settings
from services.submission import Request
from services.tables import Dataset
from tests.support.clocked import Clock
from tests.support.cluster import ADMIN
from tests.support.databases import make_schema
from tests.support.servers import ValkeyServer


@pytest.fixture
def context(tmp_path: Path, valkey_server: ValkeyServer, valkey_url: str) -> Iterator[Context]:
    made = Context(Settings.load({"BGPANET_HOME": str(tmp_path), "BGPANET_REDIS_URL": valkey_url}))
    make_schema(made.database.url)
    counts = [{"class": name, "images": 60, "groups": 30} for name in ("a", "b")]
    with made.database.write() as session:
        session.execute(
            insert(Dataset).values(
                id="d",
                name="lesions",
                format="folder",
                digest="0" * 64,
                classes=["a", "b"],
                class_counts=counts,
                images=120,
                groups=60,
                group_unit="image",
                synthetic=False,
                findings=[],
                files={},
                created_by="ada",
                created_at=0,
            )
        )
    yield made
    made.celery.close()
    made.database.close()


def submit(context: Context, **changes: object) -> str:
    spec = {"model": "bgpanet_micro", **changes}
    return str(submission.submit(context, ADMIN, Request(kind="train", dataset="lesions", spec=spec))[0]["id"])


def messages(context: Context) -> dict[str, int]:
    return queue.unanswered(context.celery, ("any", "cpu", "gpu"))


def test_a_submission_wakes_a_worker_of_its_class(context: Context) -> None:
    submit(context)
    submit(context, resources={"device": "gpu"})
    assert messages(context) == {"any": 1, "cpu": 0, "gpu": 1}


def test_each_fold_wakes_a_worker(context: Context) -> None:
    spec = {"model": "bgpanet_micro", "split": {"folds": 4}}
    submission.submit(context, ADMIN, Request(kind="cross_validate", dataset="lesions", spec=spec))
    assert messages(context)["any"] == 4


def test_after_redis_lost_everything_waiting_jobs_are_told_again(context: Context, valkey_url: str) -> None:
    for _ in range(3):
        submit(context)
    with redis.Redis.from_url(valkey_url) as client:
        client.flushall()
    scheduler.tick(context)
    assert messages(context)["any"] == 3
    scheduler.tick(context)
    assert messages(context)["any"] == 3


def test_nobody_is_woken_for_nothing(context: Context) -> None:
    job_id = submit(context)
    jobs.cancel(context.database, job_id)
    with redis.Redis.from_url(context.settings.redis_url) as client:
        client.flushall()
    scheduler.tick(context)
    assert messages(context) == {"any": 0, "cpu": 0, "gpu": 0}


def test_a_job_that_is_submitted_while_redis_is_away_waits_until_it_is_back(
    context: Context, valkey_server: ValkeyServer
) -> None:
    valkey_server.stop()
    try:
        job_id = submit(context)
        assert views.get_job(context.database, ADMIN, job_id)["state"] == "queued"
    finally:
        valkey_server.start()
    scheduler.tick(context)
    assert messages(context)["any"] == 1


def test_a_retry_wakes_a_worker_when_it_is_due_and_not_before(context: Context, valkey_url: str) -> None:
    clock = Clock()
    context.database.close()
    context.__dict__["database"] = Database(context.settings.database_url, clock)
    submit(context)
    claim = jobs.claim(context.database, "w", Offer(["any"]), 30)
    assert claim is not None
    jobs.fail(context.database, claim.lease, "storage", "x")
    with redis.Redis.from_url(valkey_url) as client:
        client.flushall()
    scheduler.tick(context)
    assert messages(context)["any"] == 0
    clock.forward(jobs.RETRY_DELAYS[0])
    scheduler.tick(context)
    assert messages(context)["any"] == 1


def test_two_schedulers_that_tick_at_once_cause_no_storm(context: Context, valkey_url: str) -> None:
    for _ in range(5):
        submit(context)
    with redis.Redis.from_url(valkey_url) as client:
        client.flushall()
    for _ in range(4):
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(scheduler.tick, [context, context]))
    assert 5 <= messages(context)["any"] <= 10


def test_two_schedulers_take_an_expired_job_back_once(context: Context) -> None:
    new = NewJob("train", "x", {}, "d", "ada")
    job_id, _ = jobs.submit(context.database, new)
    assert jobs.claim(context.database, "w", Offer(["any"]), 0.001) is not None
    assert [jobs.expire_leases(context.database) for _ in range(2)] in ([[job_id], []], [[], [job_id]])
    assert views.get_job(context.database, ADMIN, job_id)["state"] == "queued"
