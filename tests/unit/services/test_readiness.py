"""`/readyz`: what is told of each part, and how often they are asked."""

import threading
from collections.abc import Collection
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from services.context import Context
from services.database import Database
from services.errors import StorageError
from services.migration import migrate
from services.readiness import KEPT_SECONDS, Readiness, Schema, Unready
from services.settings import Settings
from services.tables import Base
from services.web import create_app


@pytest.fixture(autouse=True)
def _busy_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who answers may take long."""
    monkeypatch.setattr("services.readiness.PATIENCE_SECONDS", 120.0)


def test_what_is_wrong_with_a_part_is_told_without_its_secrets() -> None:
    def storage() -> None:
        raise StorageError("s3://bucket with key ABC")

    def schema() -> None:
        raise Unready("run bgpanet migrate")

    told = Readiness({"artifacts": storage, "schema": schema, "redis": lambda: None}).checks()
    assert told == {"artifacts": "StorageError", "schema": "run bgpanet migrate", "redis": "ok"}


def test_a_part_is_asked_once_however_many_ask() -> None:
    asked, now = [], [0.0]
    ready = Readiness({"a": lambda: asked.append(1)}, lambda: now[0])
    threads = [threading.Thread(target=ready.checks) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(asked) == 1
    now[0] += KEPT_SECONDS
    ready.checks()
    assert len(asked) == 2


def test_a_part_that_does_not_answer_holds_up_no_other_and_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.readiness.PATIENCE_SECONDS", 0.1)
    answer, asked, now = threading.Event(), [], [0.0]

    def silent() -> None:
        asked.append(1)
        answer.wait()

    def patient(parts: Collection[Future[str]], seconds: float) -> Any:
        wait(parts, return_when=FIRST_COMPLETED)  # the time begins when the one that answers has done so
        return wait(parts, seconds)

    monkeypatch.setattr("services.readiness.wait", patient)

    ready = Readiness({"store": silent, "database": lambda: None}, lambda: now[0])
    for _ in range(3):
        now[0] += KEPT_SECONDS
        told = ready.checks()
        assert told["database"] == "ok"
        assert told["store"].startswith("no answer")
    assert len(asked) == 1
    answer.set()
    while ready.checks()["store"] != "ok":
        now[0] += KEPT_SECONDS


def test_a_database_without_tables_or_with_old_ones_is_not_ready_and_a_newer_one_is(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'test.db'}")
    schema = Schema(database)
    with pytest.raises(Unready, match="no tables yet; run bgpanet migrate"):
        schema.check()
    migrate(database.url, "0003")
    with pytest.raises(Unready, match="at 0003; run bgpanet migrate"):
        schema.check()
    migrate(database.url)
    schema.check()
    with database.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    schema.check()
    database.close()


def test_503_until_every_part_is_ready(tmp_path: Path) -> None:
    settings = Settings.load({"BGPANET_HOME": str(tmp_path), "BGPANET_REDIS_URL": "redis://127.0.0.1:1/0"})
    Base.metadata.create_all(Context(settings).database.engine)
    answer = create_app(settings).test_client().get("/readyz")
    assert answer.status_code == 503
    checks = answer.get_json()["checks"]
    assert checks["database"] == checks["artifacts"] == "ok"
    assert "migrate" in checks["schema"]
    assert checks["redis"] != "ok"
