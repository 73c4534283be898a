"""The doctor finds what is wrong and says what to do, and one part that is broken hides none of the others."""

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import delete, insert, update

from bgpanet.catalogue import IMAGENET_FILES
from services import doctor, fleet, jobs, local
from services.context import Context
from services.database import Database
from services.doctor import CHECKS, Finding, examine
from services.fleet import Condition, Member, Weights
from services.leadership import Leadership
from services.production import first_token
from services.settings import Settings
from services.tables import Dataset, Token
from tests.support.clocked import DATASET, Clock
from tests.support.databases import make_schema
from tests.unit.services.test_jobs import new_job

MEMBER = Member("gpu-1/0", "gpu-1", 1, "0.1.0", "CPU", ["any", "cpu"])


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Context]:
    """An installation in which all is well but for Redis, which is away, and torch, which is not asked."""
    monkeypatch.setitem(CHECKS, "torch", lambda _: iter(()))
    settings = Settings.load({"BGPANET_HOME": str(tmp_path), "BGPANET_REDIS_URL": "redis://127.0.0.1:1/0"})
    make_schema(settings.database_url)
    made = Context(settings)
    first_token(made)
    Leadership(made.database, "scheduler", "here", 600).hold()
    fleet.beat(made.database, MEMBER, None, {}, Weights(reachable=True))
    yield made
    made.database.close()
    made.celery.close()


def found(context: Context, part: str) -> list[Finding]:
    return [finding for finding in examine(context) if finding.part == part]


def only(context: Context, part: str) -> Finding:
    (finding,) = found(context, part)
    return finding


def test_every_part_is_looked_at_and_what_is_wrong_says_what_to_do(context: Context) -> None:
    findings = list(examine(context))
    assert {finding.part for finding in findings} == CHECKS.keys() - {"torch"}
    assert [finding.part for finding in findings if finding.verdict == "wrong"] == ["redis"]
    assert all(finding.to_do for finding in findings if finding.verdict != "ok")
    assert not any(finding.to_do for finding in findings if finding.verdict == "ok")


def test_a_database_that_is_away_is_said_and_the_rest_is_looked_at_all_the_same(
    tmp_path: Path, context: Context
) -> None:
    away = Context(Settings.load({"BGPANET_HOME": str(tmp_path), "BGPANET_DATABASE_URL": f"sqlite:///{tmp_path}"}))
    verdicts = {finding.part: finding.verdict for finding in examine(away)}
    assert verdicts["database"] == verdicts["workers"] == "wrong"
    assert verdicts["artifacts"] == verdicts["browser assets"] == "ok"


def test_a_database_of_another_version_is_told_with_the_way_out(context: Context) -> None:
    with context.database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0003'")
    assert only(context, "schema") == Finding("schema", "wrong", only(context, "schema").what, "run `bgpanet migrate`")
    with context.database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    assert only(context, "schema").verdict == "doubtful"


@pytest.mark.parametrize(("seconds", "verdict"), [(0, "ok"), (-30, "wrong"), (30, "wrong"), (3600, "wrong")])
def test_clocks_that_differ_are_told(context: Context, seconds: float, verdict: str) -> None:
    def clock() -> int:
        return time.time_ns() // 1_000_000 + round(seconds * 1000)

    context.database.close()
    vars(context)["database"] = Database(context.settings.database_url, clock)
    assert only(context, "clock").verdict == verdict


def test_a_store_that_loses_or_refuses_is_told(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    assert only(context, "artifacts").verdict == "ok"
    assert list(context.store.keys("")) == []
    monkeypatch.setattr(context.store, "delete", lambda key: None)
    assert "still there" in only(context, "artifacts").what
    monkeypatch.undo()
    shutil.rmtree(context.settings.home / "artifacts", ignore_errors=True)
    (context.settings.home / "artifacts").write_text("in its place")
    assert only(context, "artifacts").verdict == "wrong"


@pytest.mark.parametrize(("free", "verdict"), [(5e11, "ok"), (5e9, "doubtful"), (5e8, "wrong")])
def test_a_disk_that_is_nearly_full_is_told(
    context: Context, monkeypatch: pytest.MonkeyPatch, free: float, verdict: str
) -> None:
    usage = SimpleNamespace(total=10**12, used=0, free=int(free))
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: usage)  # type: ignore[attr-defined]
    assert {finding.verdict for finding in found(context, "disk")} == {verdict}


def test_without_a_scheduler_or_a_worker_nothing_gets_on(context: Context, clock: Clock) -> None:
    fleet.leave(context.database, MEMBER.name)
    Leadership(context.database, "scheduler", "here").give_back()
    assert only(context, "scheduler").to_do.startswith("start `bgpanet scheduler`")
    assert only(context, "workers").to_do == "start `bgpanet worker`"
    assert only(context, "ImageNet weights").verdict == "doubtful"


def test_a_slot_that_is_unfit_says_why_and_jobs_that_nobody_can_take_are_counted(context: Context) -> None:
    unfit = Condition("unfit", "scratch folder: full")
    fleet.beat(context.database, MEMBER, None, {}, Weights(reachable=True), unfit)
    with context.database.write() as session:
        session.execute(insert(Dataset).values(**DATASET))
    jobs.submit(context.database, new_job(resource_class="gpu"))
    told = [finding.what for finding in found(context, "workers")]
    assert told == [
        "no slot takes jobs",
        "gpu-1/0 takes none: scratch folder: full",
        "1 jobs wait for a slot of class gpu, and none has it",
    ]


def test_weights_that_no_worker_can_have_are_told(context: Context) -> None:
    fleet.beat(context.database, MEMBER, None, {}, Weights("/weights", ["swin_b-68c6b09e.pth"], False))
    assert only(context, "ImageNet weights").what.startswith("1 of ")
    fleet.beat(context.database, MEMBER, None, {}, Weights("/weights", sorted(IMAGENET_FILES), False))
    assert only(context, "ImageNet weights").verdict == "ok"


def test_an_installation_that_nobody_can_sign_in_to_is_told(context: Context) -> None:
    with context.database.write() as session:
        session.execute(update(Token).values(role="viewer"))
    assert only(context, "tokens").to_do == "run `bgpanet first-token`"
    with context.database.write() as session:
        session.execute(delete(Token))
    assert only(context, "tokens").verdict == "wrong"


def test_what_production_refuses_is_told_with_what_to_do(tmp_path: Path) -> None:
    variables = {"BGPANET_HOME": str(tmp_path), "BGPANET_REDIS_URL": "redis://queue.invalid/0"}
    finding = next(examine(Context(Settings.load(variables))))
    assert (finding.part, finding.verdict) == ("safety", "wrong")
    assert "BGPANET_REDIS_URL" in finding.to_do


def test_torch_is_asked_in_a_process_of_its_own(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "TORCH", "raise ImportError('libcudart is missing')")
    monkeypatch.setitem(CHECKS, "torch", doctor._torch)
    assert only(context, "torch").what == "ImportError: libcudart is missing"


def test_what_up_runs_is_found_by_its_home_and_only_while_it_runs(tmp_path: Path) -> None:
    settings: Any = Settings.load({"BGPANET_HOME": str(tmp_path)})
    assert local.as_running(settings) == settings
    (tmp_path / "redis.url").write_text("redis://:x@127.0.0.1:7/0")
    (tmp_path / "lock").touch()
    assert local.as_running(settings) == settings
    lock = local._only_one(tmp_path)
    try:
        running = local.as_running(settings)
        assert (running.redis_url, running.embedded) == ("redis://:x@127.0.0.1:7/0", True)
    finally:
        os.close(lock)
