"""What the database tells Prometheus, on real PostgreSQL, and that asking it reads no job that has ended."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import event, insert, text

from services import fleet, jobs
from services.claims import NewJob
from services.context import Context
from services.fleet import Member, Weights
from services.leadership import Leadership
from services.order import Offer
from services.settings import Settings
from services.tables import Dataset
from services.telemetry.from_sql import FromSQL
from tests.support.clocked import DATASET

OFFER = Offer(("any", "cpu"))


@pytest.fixture
def context(tmp_path: Path, migrated_postgres_url: str) -> Iterator[Context]:
    made = Context(Settings(tmp_path, migrated_postgres_url, "redis://127.0.0.1:1/0", (tmp_path / "a").as_uri()))
    with made.database.write() as session:
        session.execute(insert(Dataset).values(**DATASET))
    yield made
    made.database.close()
    made.celery.close()


def test_the_same_is_told_on_postgresql(context: Context) -> None:
    registry, now = CollectorRegistry(), [1000.0]
    registry.register(FromSQL(context, 1000.0, lambda: now[0]))
    database = context.database
    for _ in range(3):
        jobs.submit(database, NewJob("train", "a", {}, "d", "ada"))
    first, second = (jobs.claim(database, "w", OFFER, 30) for _ in range(2))
    assert first is not None
    assert second is not None
    jobs.finish(database, first.lease, {}, [])
    jobs.fail(database, second.lease, "storage", "the store is away")
    fleet.beat(database, Member("w/0", "h", 1, "1", "CPU", ("any", "cpu")), None, {"cpu_percent": 50}, Weights())
    Leadership(database, "scheduler", "s").hold()
    now[0] += 60

    def told(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(name, labels)

    assert told("bgpanet_sql_up") == 1
    assert told("bgpanet_jobs_waiting", kind="train", resource_class="any") == 2
    oldest = told("bgpanet_oldest_waiting_seconds", resource_class="any")
    assert oldest is not None
    assert 0 < oldest < 60
    assert told("bgpanet_claims_total", kind="train") == 2
    assert told("bgpanet_retries_total", kind="train", reason="storage") == 1
    assert told("bgpanet_jobs_ended_total", kind="train", state="succeeded", reason="") == 1
    assert told("bgpanet_worker_cpu_ratio", worker="w/0") == 0.5
    assert told("bgpanet_scheduler_leaders") == 1


def test_reading_all_of_it_looks_at_no_job_that_has_ended(context: Context) -> None:
    """With 100,000 of them, no statement's plan goes through the tables."""
    columns = (
        "project, kind, name, dataset_id, spec, resource_class, priority, attempt, losses, max_attempts, on_failure"
    )
    values = "'~ada', 'train', 'a', 'd', '{}', 'any', 0, 1, 0, 3, 'finish_rest'"
    more = "wants_worker, not_before, cancel_requested, pause_requested, progress, summary, created_by, created_at"
    with context.database.write() as session:
        session.execute(
            text(
                f"INSERT INTO jobs (id, state, {columns}, {more}) SELECT 'e' || n, 'succeeded', {values}, "  # noqa: S608
                "false, 0, false, false, '{}', '{}', 'ada', n FROM generate_series(1, 100000) n"
            )
        )
        session.execute(
            text(
                "INSERT INTO transitions (job_id, at, attempt, state, detail) "
                "SELECT 'e' || n, n, 1, 'succeeded', '' FROM generate_series(1, 100000) n"
            )
        )
    for _ in range(100):
        jobs.submit(context.database, NewJob("train", "a", {}, "d", "ada"))
    engine, asked = context.database.engine, []
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))

    @event.listens_for(engine, "before_cursor_execute")
    def noted(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        asked.append((statement, parameters))

    list(FromSQL(context, 1000.0, lambda: 1005.0).collect())
    event.remove(engine, "before_cursor_execute", noted)
    assert len(asked) > 6
    for statement, parameters in asked:
        with engine.connect() as connection:
            rows = connection.exec_driver_sql(f"EXPLAIN {statement}", parameters)
            plan = "\n".join(str(row[0]) for row in rows)
        assert "Seq Scan on jobs" not in plan, f"{statement}\n{plan}"
        assert "Seq Scan on transitions" not in plan, f"{statement}\n{plan}"
