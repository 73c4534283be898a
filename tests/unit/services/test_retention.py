"""What goes and what stays of ended jobs, on SQLite and a folder; `tests/integration` has PostgreSQL and S3."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import func, insert, select, update

from services import jobs, retention
from services.claims import Batch, Claim, NewArtifact, StoredFile
from services.context import Context
from services.database import Database
from services.settings import Settings
from services.tables import Attempt, Base, Checkpoint, Dataset, LogLine, Metric, Transition
from tests.support.clocked import DATASET, Clock
from tests.support.databases import make_schema
from tests.unit.services.test_jobs import claim, new_job

DAY = 24 * 3600


@pytest.fixture
def context(tmp_path: Path, clock: Clock) -> Iterator[Context]:
    made = Context(Settings.load({"BGPANET_HOME": str(tmp_path)}))
    made.__dict__["database"] = Database(made.settings.database_url, clock)
    make_schema(made.database.url)
    with made.database.write() as session:
        session.execute(insert(Dataset).values(**DATASET))
    yield made
    made.database.close()


def running(context: Context) -> Claim:
    jobs.submit(context.database, new_job())
    return claim(context.database)


def put(context: Context, claimed: Claim, text: str, age_seconds: float = 2 * 3600) -> StoredFile:
    """A file that the attempt stored so long ago."""
    content = text.encode()
    sha256 = hashlib.sha256(content).hexdigest()
    key = f"jobs/{claimed.lease.job_id}/{claimed.lease.attempt}/{sha256}"
    source = context.settings.home / "source"
    source.write_bytes(content)
    context.store.put_file(key, source, sha256)
    path = context.store.local_path(key)
    assert path is not None
    then = path.stat().st_mtime - age_seconds
    os.utime(path, (then, then))
    return StoredFile(key, sha256, len(content))


def checkpoint(context: Context, claimed: Claim, step: int) -> StoredFile:
    file = put(context, claimed, f"checkpoint {claimed.lease} {step}")
    jobs.record_checkpoint(context.database, claimed.lease, step, 1, {"model.safetensors": file})
    return file


def stored(context: Context) -> set[str]:
    return set(context.store.keys("jobs/"))


def count(context: Context, table: type[Base]) -> int:
    with context.database.read() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


# ── Files ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_files_that_nothing_names_go_and_all_others_stay(context: Context) -> None:
    failed, succeeded = running(context), running(context)
    kept = checkpoint(context, failed, 1)
    result = put(context, succeeded, "result")
    data = put(context, succeeded, "data set")
    lost = [put(context, failed, "lost upload"), put(context, succeeded, "superseded")]
    jobs.fail(context.database, failed.lease, "internal", "x")
    jobs.finish(context.database, succeeded.lease, {}, [NewArtifact("report.json", "application/json", result)])
    with context.database.write() as session:
        session.execute(update(Dataset).values(files={"images.pack": data.as_json()}))
    swept = retention.sweep(context)
    assert stored(context) == {kept.key, result.key, data.key}
    assert (swept.orphans, swept.bytes) == (2, sum(file.size for file in lost))


def test_a_running_attempts_files_stay_and_those_of_the_attempt_before_it_go(context: Context) -> None:
    first = running(context)
    dead = put(context, first, "of the first attempt")
    jobs.release(context.database, first.lease, "x")
    second = claim(context.database)
    assert second.lease.job_id == first.lease.job_id
    uploading = put(context, second, "about to be named")
    retention.sweep(context)
    assert stored(context) == {uploading.key}
    assert dead.key not in stored(context)


def test_young_files_stay(context: Context) -> None:
    claimed = running(context)
    file = put(context, claimed, "young", age_seconds=retention.YOUNG_SECONDS - 60)
    jobs.fail(context.database, claimed.lease, "internal", "x")
    retention.sweep(context)
    assert stored(context) == {file.key}


def test_a_file_stays_while_a_row_of_another_job_names_it(context: Context) -> None:
    """A retry takes over the checkpoint of the job that failed."""
    failed, retry = running(context), running(context)
    file = checkpoint(context, failed, 1)
    jobs.fail(context.database, failed.lease, "internal", "x")
    with context.database.write() as session:
        session.execute(update(Checkpoint).values(job_id=retry.lease.job_id))
    retention.sweep(context)
    assert stored(context) == {file.key}


def test_what_no_attempt_wrote_is_left_alone(context: Context) -> None:
    for key in ("jobs/readme", "jobs/a/b/c", "uploads/x", "jobs/a/1/b/c"):
        source = context.settings.home / "source"
        source.write_bytes(b"x")
        context.store.put_file(key, source, hashlib.sha256(b"x").hexdigest())
        os.utime(context.settings.home / "artifacts" / key, (0, 0))
    retention.sweep(context)
    assert len(list(context.store.keys(""))) == 4


def test_a_job_that_succeeds_between_the_two_questions_keeps_its_result(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    claimed = running(context)
    result = put(context, claimed, "result")
    listed = next(context.store.pages("jobs/"))
    artifacts = [NewArtifact("report.json", "application/json", result)]
    asked = Database.read
    finished: list[int] = []

    def finish_after_the_first(database: Database, **options: bool) -> object:
        if len(finished) == 1:
            jobs.finish(database, claimed.lease, {}, artifacts)
        finished.append(1)
        return asked(database, **options)

    monkeypatch.setattr(Database, "read", finish_after_the_first)
    assert retention.orphans(context.database, listed) == []
    assert len(finished) >= 2


def test_a_sweep_that_is_told_to_stop_stops_and_the_next_one_does_the_rest(context: Context) -> None:
    claimed = running(context)
    for number in range(10):
        put(context, claimed, f"lost {number}")
    jobs.fail(context.database, claimed.lease, "internal", "x")
    answers = iter([True, True, True, False])
    assert retention.sweep(context, lambda: next(answers)).orphans == 3
    assert retention.sweep(context).orphans == 7
    assert stored(context) == set()


# ── Rows ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("end", ["failed", "cancelled"])
def test_checkpoints_of_ended_jobs_stay_for_a_retry_and_go_after_their_time(
    context: Context, clock: Clock, end: str
) -> None:
    claimed = running(context)
    files = {checkpoint(context, claimed, step).key for step in (1, 2)}
    if end == "failed":
        jobs.fail(context.database, claimed.lease, "internal", "x")
    else:
        jobs.cancel(context.database, claimed.lease.job_id)
        jobs.confirm_cancel(context.database, claimed.lease)
    clock.forward(14 * DAY - 1)
    retention.sweep(context)
    assert (count(context, Checkpoint), stored(context)) == (2, files)
    clock.forward(2)
    assert retention.sweep(context).checkpoints == 2
    assert stored(context) == files, "a retry may be naming them at this moment"
    assert retention.sweep(context).orphans == 2
    assert stored(context) == set()


def test_checkpoints_of_jobs_that_have_not_ended_stay_for_ever(context: Context, clock: Clock) -> None:
    claimed = running(context)
    file = checkpoint(context, claimed, 1)
    jobs.release(context.database, claimed.lease, "x")
    clock.forward(1000 * DAY)
    for _ in range(2):
        retention.sweep(context)
    assert (count(context, Checkpoint), stored(context)) == (1, {file.key})


def test_old_logs_go_in_batches_and_figures_and_history_stay(
    context: Context, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "LINES_AT_ONCE", 3)
    old, unfinished = running(context), running(context)
    batch = Batch(
        metrics=[{"name": "loss", "step": 1, "epoch": 1, "value": 0.5}],
        logs=[("info", f"line {number}") for number in range(7)],
    )
    for claimed in (old, unfinished):
        jobs.renew(context.database, claimed.lease, 1e9, batch)
    jobs.fail(context.database, old.lease, "internal", "x")
    clock.forward(90 * DAY - 1)
    assert retention.sweep(context).lines == 0
    clock.forward(2)
    before = [count(context, table) for table in (Metric, Transition, Attempt)]
    assert retention.sweep(context).lines == 7
    assert [count(context, table) for table in (Metric, Transition, Attempt)] == before
    with context.database.read() as session:
        assert set(session.scalars(select(LogLine.job_id))) == {unfinished.lease.job_id}
