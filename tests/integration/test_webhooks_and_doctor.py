"""Deliveries that many claim at once, ends beside removals, and what the doctor says of real servers."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
from sqlalchemy import insert, select, update

from services import deliveries, doctor, jobs, outbox, production, webhooks
from services.claims import NewJob
from services.context import Context
from services.database import Database
from services.leadership import Leadership
from services.order import Offer
from services.settings import Settings
from services.tables import Dataset, Delivery, Job
from services.tokens import Principal
from services.webhooks import NewWebhook, WebhookChange
from tests.support.at_once import at_once
from tests.support.clocked import DATASET
from tests.support.databases import migrated_url

ADA = Principal("ada", "researcher")
ASKED = NewWebhook("https://lab.example.org/hooks", ("succeeded", "failed", "cancelled"))
THREADS = 8


@pytest.fixture(params=["postgresql", "sqlite"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    made = Database(migrated_url(request, tmp_path))
    with made.write() as session:
        session.execute(insert(Dataset).values(**DATASET))
    yield made
    made.close()


def new_job() -> NewJob:
    return NewJob(kind="train", name="a job", spec={}, dataset_id="d", created_by="ada")


def test_each_delivery_is_made_by_one_of_many(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    hook = str(webhooks.create(database, ADA, ASKED, ())[0]["id"])
    ends = 30
    for _ in range(ends):
        jobs.cancel(database, jobs.submit(database, new_job())[0])
    calls: list[str] = []

    def called(url: str, body: bytes, headers: dict[str, str], **_: Any) -> int:
        calls.append(headers["Webhook-Id"])
        return 200

    monkeypatch.setattr("services.deliveries.addresses.post", called)
    context = Context(Settings.load({"BGPANET_DATABASE_URL": database.url}))
    vars(context)["database"] = database

    def deliver() -> None:
        while (claimed := outbox.claim(database)) is not None:
            deliveries.deliver(context, claimed)

    at_once([deliver] * THREADS)
    with database.read() as session:
        states = session.execute(select(Delivery.state, Delivery.tries).where(Delivery.webhook_id == hook)).all()
    assert [tuple(state) for state in states] == [("delivered", 1)] * ends
    assert len(calls) == len(set(calls)) == ends


def test_a_webhook_that_is_removed_at_the_same_moment_undoes_no_end(database: Database) -> None:
    for _ in range(10):
        hook = str(webhooks.create(database, ADA, ASKED, ())[0]["id"])
        job_id, _ = jobs.submit(database, new_job())
        claim = jobs.claim(database, "w", Offer(["any"]), 60)
        assert claim is not None
        at_once([partial(jobs.finish, database, claim.lease, {}, []), partial(webhooks.remove, database, ADA, hook)])
        with database.read() as session:
            assert session.scalar(select(Job.state).where(Job.id == job_id)) == "succeeded"
    outbox.forget(database, 90)
    with database.read() as session:
        assert session.scalars(select(Delivery.id)).all() == []


def test_a_webhook_that_is_switched_off_at_the_same_moment_undoes_no_end_and_loses_nothing_that_was_written(
    database: Database,
) -> None:
    hook = str(webhooks.create(database, ADA, ASKED, ())[0]["id"])
    written = 0
    for _ in range(20):
        jobs.submit(database, new_job())
        claim = jobs.claim(database, "w", Offer(["any"]), 60)
        assert claim is not None
        switch = partial(webhooks.change, database, ADA, hook, WebhookChange(active=False))
        at_once([partial(jobs.finish, database, claim.lease, {}, []), switch])
        assert outbox.claim(database) is None, "it is off, so what was written is held"
        with database.read() as session:
            waiting = session.scalars(select(Delivery.id).where(Delivery.state == "waiting")).all()
        assert len(waiting) <= 1
        webhooks.change(database, ADA, hook, WebhookChange(active=True))
        for delivery in waiting:
            claimed = outbox.claim(database)
            assert claimed is not None
            assert claimed.delivery.id == delivery
            outbox.settle(database, claimed.delivery, 200, None)
            written += 1
    with database.read() as session:
        assert set(session.scalars(select(Job.state))) == {"succeeded"}
        states = session.scalars(select(Delivery.state)).all()
    assert states == ["delivered"] * written


def test_an_end_that_is_being_written_while_its_webhook_is_switched_off_is_held_and_told_later(
    database: Database,
) -> None:
    hook = str(webhooks.create(database, ADA, ASKED, ())[0]["id"])
    job_id, _ = jobs.submit(database, new_job())
    with ThreadPoolExecutor(1) as pool:
        with database.write() as session:
            session.execute(update(Job).where(Job.id == job_id).values(state="succeeded"))
            outbox.tell_end(session, job_id)
            switched = pool.submit(webhooks.change, database, ADA, hook, WebhookChange(active=False))
            if not database.is_sqlite:  # there, one that writes waits for the other's commit
                assert not switched.result()["active"]
        assert not switched.result()["active"]
    assert not outbox.is_due(database)
    assert outbox.claim(database) is None
    webhooks.change(database, ADA, hook, WebhookChange(active=True))
    claimed = outbox.claim(database)
    assert claimed is not None
    assert (claimed.delivery.job_id, claimed.delivery.tries) == (job_id, 1)


def test_a_redis_that_wants_no_password_is_found_open(valkey_url: str) -> None:
    assert production.redis_is_open(valkey_url)
    with redis.Redis.from_url(valkey_url) as client:
        client.config_set("requirepass", "a-password-of-a-test")
        try:
            assert not production.redis_is_open(valkey_url)
            with_password = valkey_url.replace("redis://", "redis://:a-password-of-a-test@")
            assert not production.redis_is_open(with_password)
        finally:
            client.execute_command("AUTH", "a-password-of-a-test")
            client.config_set("requirepass", "")
    assert production.redis_is_open(with_password)  # it asks without


def test_the_doctor_looks_at_real_servers(
    migrated_postgres_url: str, valkey_url: str, s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.secret_key)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setitem(doctor.CHECKS, "torch", lambda _: iter(()))
    variables = {
        "BGPANET_HOME": str(tmp_path),
        "BGPANET_DATABASE_URL": migrated_postgres_url,
        "BGPANET_REDIS_URL": valkey_url,
        "BGPANET_ARTIFACTS_URL": f"s3://{s3.bucket}/there",
        "BGPANET_S3_ENDPOINT_URL": s3.endpoint_url,
    }
    context = Context(Settings.load(variables))
    production.first_token(context)
    Leadership(context.database, "scheduler", "here", 600).hold()
    verdicts = {(finding.part, finding.verdict) for finding in doctor.examine(context)}
    assert {part for part, verdict in verdicts if verdict == "wrong"} == {"workers"}
    for part in ("database", "schema", "clock", "redis", "artifacts", "scheduler", "tokens"):
        assert (part, "ok") in verdicts
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not the server's")
    strange = Context(Settings.load(variables))
    (finding,) = [finding for finding in doctor.examine(strange) if finding.part == "artifacts"]
    for each in (context, strange):
        each.database.close()
        each.celery.close()
        each.store._client.close()  # type: ignore[attr-defined]
    assert (finding.verdict, bool(finding.to_do)) == ("wrong", True)
