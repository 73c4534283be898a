"""Backups and their way back, on SQLite and a folder. `tests/integration` rehearses it with everything that is real."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from sqlalchemy import select, update

from services import audit, backups, jobs, outbox, restoring, tokens, views, webhooks
from services.artifacts import sha256_of
from services.backups import back_up, named_by
from services.claims import Batch, NewArtifact, StoredFile
from services.context import Context
from services.database import Database
from services.errors import Conflict, Damaged, NotFound
from services.ids import new_id
from services.migration import config, migrate
from services.order import Offer
from services.restoring import restore
from services.settings import Settings
from services.tables import Base, Checkpoint, Dataset, Job, Transition, Upload, Worker
from services.tokens import Principal
from services.webhooks import NewWebhook
from tests.support.clocked import DATASET
from tests.support.databases import make_schema
from tests.unit.services.test_jobs import claim, new_job, submit

ADA = Principal("ada", "admin")


def place(folder: Path) -> Context:
    return Context(Settings.load({"BGPANET_HOME": str(folder), "BGPANET_REDIS_URL": "redis://127.0.0.1:1/0"}))


def stored(context: Context, key: str, content: bytes) -> StoredFile:
    path = context.settings.home / "file"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    context.store.put_file(key, path, sha256_of(path))
    return StoredFile(key, sha256_of(path), len(content))


@pytest.fixture
def old(tmp_path: Path) -> Iterator[Context]:
    """With a data set, a training that ended, one that runs and has a checkpoint, a failed family that is tried again,
    and what people made."""
    made = place(tmp_path / "old")
    make_schema(made.settings.database_url)
    packed = stored(made, "datasets/d/images", b"images")
    with made.database.write() as session:
        session.add(Dataset(**{**DATASET, "files": {"images": packed.as_json()}}))
    submit(made.database)
    ended = claim(made.database)
    files = [NewArtifact("report.json", "application/json", stored(made, f"jobs/{ended.lease.job_id}/1/a", b"report"))]
    jobs.finish(made.database, ended.lease, {"figures": {"f1": 0.5}}, files)
    parent = submit(made.database, kind="cross_validate", children=[new_job(name="fold 0"), new_job(name="fold 1")])
    jobs.finish(made.database, claim(made.database).lease, {}, [])
    jobs.fail(made.database, claim(made.database).lease, "stalled", "it hung")
    jobs.retry(made.database, parent)  # whose finished child is older than it, and belongs to it now
    jobs.cancel(made.database, parent)
    running = submit(made.database, priority=9)
    lease = claim(made.database).lease
    assert lease.job_id == running
    metrics = [{"step": 1, "epoch": 0, "name": "loss", "value": 0.1 + 0.2}]
    jobs.renew(made.database, lease, 30, Batch(metrics=metrics, logs=[("info", "a line, \N{SNOWMAN}")]))
    weights = {"model.safetensors": stored(made, f"jobs/{running}/1/w", b"weights")}
    jobs.record_checkpoint(made.database, lease, 7, 1, weights)
    tokens.create(made.database, "notebook", "ada", "admin", "secret of ada's")
    webhooks.create(made.database, ADA, NewWebhook("https://lab.example.org/", ("failed",)), ())
    yield made
    made.database.close()


@pytest.fixture
def new(tmp_path: Path) -> Iterator[Context]:
    made = place(tmp_path / "new")
    yield made
    made.database.close()


def rows(database: Database) -> dict[str, list[tuple[Any, ...]]]:
    """Everything in all tables that are backed up."""
    with database.read() as session:
        return {
            table.name: [tuple(row) for row in session.execute(select(table).order_by(*table.primary_key.columns))]
            for table in Base.metadata.sorted_tables
            if table.name not in backups.OF_PROCESSES
        }


def test_what_is_restored_is_what_was_there_to_the_last_bit(old: Context, new: Context, tmp_path: Path) -> None:
    with old.database.write() as session:
        worker = {"name": "w", "host": "h", "pid": 1, "version": "1", "device": "CPU", "resource_classes": ["any"]}
        session.add(Worker(**worker, figures={}, started_at=0, seen_at=0))
    made = back_up(old, tmp_path / "backup")
    assert (made.objects, made.fetched, made.missing) == (3, 3, [])
    done = restore(new, tmp_path / "backup")
    assert rows(new.database) == rows(old.database)
    assert (done.rows, done.objects, done.sent, done.dropped) == (made.rows, 3, 3, 0)
    assert list(new.store.keys("")) == list(old.store.keys(""))
    for key in old.store.keys(""):
        with old.store.open(key) as one, new.store.open(key) as other:
            assert one.read() == other.read()
    with new.database.read() as session:
        assert session.scalars(select(Worker.name)).all() == []  # it does not run there
    assert audit.verify(new.database, audit.verify(old.database).head).broken is None
    assert audit.verify(new.database).head.number > 0
    whose = tokens.verify(new.database, "secret of ada's")
    assert whose is not None
    assert (whose.user, whose.role) == (ADA.user, ADA.role)


def test_a_job_that_ran_goes_on_from_its_checkpoint_and_new_rows_get_new_numbers(
    old: Context, new: Context, tmp_path: Path
) -> None:
    back_up(old, tmp_path / "backup")
    restore(new, tmp_path / "backup")
    with new.database.write() as session:
        session.execute(update(Job).values(lease_expires_at=1).where(Job.state == "running", Job.worker.is_not(None)))
    (job_id,) = jobs.expire_leases(new.database, [0.0])
    again = jobs.claim(new.database, "w2", Offer(["any"]), 30)
    assert again is not None
    assert (again.lease.job_id, again.lease.attempt, list(again.checkpoints)) == (job_id, 2, [7])
    jobs.finish(new.database, again.lease, {}, [])
    assert views.get_job(new.database, ADA, job_id)["state"] == "succeeded"
    with new.database.read() as session:
        numbers = session.scalars(select(Transition.id).order_by(Transition.id)).all()
    assert len(set(numbers)) == len(numbers)


def test_a_second_backup_fetches_only_what_is_new_and_both_can_be_restored(
    old: Context, new: Context, tmp_path: Path
) -> None:
    folder = tmp_path / "backup"
    first = back_up(old, folder)
    before = rows(old.database)
    submit(old.database)
    running = views.list_jobs(old.database, ADA, views.JobFilter(state="running")).items[0]
    file = stored(old, f"jobs/{running['id']}/1/x", b"more weights")
    with old.database.write() as session:
        session.add(
            Checkpoint(job_id=running["id"], step=9, epoch=1, attempt=1, files={"w": file.as_json()}, created_at=0)
        )
    second = back_up(old, folder)
    assert (second.objects, second.fetched) == (4, 1)
    assert len(restoring.snapshots(folder)) == 2
    restore(new, folder, first.folder.name)
    assert rows(new.database) == before


def test_uploads_that_are_not_complete_are_left_out(old: Context, new: Context, tmp_path: Path) -> None:
    whole = stored(old, "uploads/u", b"archive")
    plain = {"name": "a.zip", "part_size": 5, "parts_id": "p", "created_by": "ada", "created_at": 0}
    with old.database.write() as session:
        session.add(Upload(id=new_id(), state="complete", **whole.as_json(), **plain))
        for state in ("open", "expired"):
            session.add(Upload(id=new_id(), state=state, key=f"uploads/{state}", sha256="0" * 64, size=5, **plain))
    assert back_up(old, tmp_path / "backup").missing == []
    restore(new, tmp_path / "backup")
    with new.database.read() as session:
        assert set(session.scalars(select(Upload.state))) == {"complete", "expired"}
    assert new.store.exists("uploads/u")


# ── Files that are not there ──────────────────────────────────────────────────────────────────────────────────────


def test_a_checkpoint_that_was_replaced_meanwhile_is_no_loss(
    old: Context, new: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files are deleted between the look at the tables and the copy; then the tables are looked at again."""
    monkeypatch.setattr(backups, "PAUSE_SECONDS", 0.0)
    fetch = backups._fetch

    def go_on_meanwhile(*arguments: Any) -> backups.Backup:
        with old.database.write() as session:
            row = session.scalars(select(Checkpoint)).one()
            if row.step == 7:
                old.store.delete(row.files["model.safetensors"]["key"])
                row.step = 8
                row.files = {"model.safetensors": stored(old, f"jobs/{row.job_id}/1/w8", b"newer").as_json()}
        return fetch(*arguments)

    monkeypatch.setattr(backups, "_fetch", go_on_meanwhile)
    assert back_up(old, tmp_path / "backup").missing == []
    restore(new, tmp_path / "backup")
    assert rows(new.database) == rows(old.database)


@pytest.mark.parametrize("harm", ["lost", "damaged"])
def test_what_the_store_has_lost_or_damaged_is_told_and_no_job_goes_on_from_it(
    old: Context, new: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    monkeypatch.setattr(backups, "PAUSE_SECONDS", 0.0)
    with old.database.read() as session:
        key = session.scalars(select(Checkpoint)).one().files["model.safetensors"]["key"]
    path = old.store.local_path(key)
    assert path is not None
    path.unlink() if harm == "lost" else path.write_bytes(b"weightS")
    made = back_up(old, tmp_path / "backup")
    assert (made.missing, made.objects) == ([key], 2)
    assert restore(new, tmp_path / "backup").dropped == 1
    with new.database.read() as session:
        assert session.scalars(select(Checkpoint)).all() == []
        assert len(session.scalars(select(Job.id)).all()) == len(rows(old.database)["jobs"])


# ── What is refused ───────────────────────────────────────────────────────────────────────────────────────────────


def test_only_an_empty_place_is_restored_into(old: Context, new: Context, tmp_path: Path) -> None:
    back_up(old, tmp_path / "backup")
    before = rows(old.database)
    with pytest.raises(Conflict, match="not empty"):
        restore(old, tmp_path / "backup")
    assert rows(old.database) == before
    stored(new, "datasets/other", b"somebody's")
    with pytest.raises(Conflict, match="datasets/other"):
        restore(new, tmp_path / "backup")
    new.store.delete("datasets/other")
    restore(new, tmp_path / "backup")
    with pytest.raises(Conflict, match="not empty"):
        restore(new, tmp_path / "backup")


def test_a_migrated_database_without_rows_is_empty(old: Context, new: Context, tmp_path: Path) -> None:
    back_up(old, tmp_path / "backup")
    migrate(new.settings.database_url)
    restore(new, tmp_path / "backup")
    assert rows(new.database) == rows(old.database)


def test_a_restore_that_was_cut_off_leaves_no_row_and_can_be_begun_again(
    old: Context, new: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    back_up(old, tmp_path / "backup")
    with monkeypatch.context() as patched:
        patched.setattr(restoring, "_number_on", lambda _, table: 1 / 0 if table.name == "transitions" else None)
        with pytest.raises(ZeroDivisionError):
            restore(new, tmp_path / "backup")
    assert not any(rows(new.database).values())
    assert restore(new, tmp_path / "backup").sent == 0
    assert rows(new.database) == rows(old.database)


@pytest.mark.parametrize("what", ["tables/jobs.jsonl.gz", "objects.jsonl.gz"])
def test_a_backup_with_a_changed_table_is_not_restored(old: Context, new: Context, tmp_path: Path, what: str) -> None:
    snapshot = back_up(old, tmp_path / "backup").folder
    content = gzip.decompress((snapshot / what).read_bytes())
    (snapshot / what).write_bytes(gzip.compress(content.replace(b"ada", b"eve") + b"\n"))
    with pytest.raises(Damaged, match="changed or damaged"):
        restore(new, tmp_path / "backup")
    assert not (new.settings.home / "artifacts").exists()


def test_a_backup_with_a_lost_or_changed_file_is_not_restored(old: Context, new: Context, tmp_path: Path) -> None:
    back_up(old, tmp_path / "backup")
    file = next((tmp_path / "backup" / "objects").glob("*/*"))
    content = file.read_bytes()
    file.write_bytes(content[:-1] + b"?")
    with pytest.raises(Damaged, match=file.name):
        restore(new, tmp_path / "backup")
    file.unlink()
    with pytest.raises(Damaged, match=file.name):
        restore(new, tmp_path / "backup")
    migrate(new.settings.database_url)
    assert not any(rows(new.database).values())


def test_a_backup_that_was_cut_off_does_not_count(
    old: Context, new: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(backups, "_fetch", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            back_up(old, tmp_path / "backup")
    with pytest.raises(NotFound, match="no whole backup"):
        restore(new, tmp_path / "backup")
    back_up(old, tmp_path / "backup")
    with pytest.raises(NotFound, match="it has: 2"):
        restore(new, tmp_path / "backup", "other")
    restore(new, tmp_path / "backup")


def test_a_backup_of_a_version_that_is_not_known_is_refused(old: Context, new: Context, tmp_path: Path) -> None:
    snapshot = back_up(old, tmp_path / "backup").folder
    manifest = json.loads((snapshot / "manifest.json").read_text())
    (snapshot / "manifest.json").write_text(json.dumps({**manifest, "revision": "9999"}))
    with pytest.raises(Conflict, match="update first"):
        restore(new, tmp_path / "backup")
    (snapshot / "manifest.json").write_text(json.dumps({**manifest, "format": 2}))
    with pytest.raises(Conflict, match="format 2"):
        restore(new, tmp_path / "backup")


def test_tables_that_somebody_changed_by_hand_are_told_and_nothing_is_restored(
    old: Context, new: Context, tmp_path: Path
) -> None:
    with old.database.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE jobs ADD COLUMN mine TEXT")
    back_up(old, tmp_path / "backup")
    with pytest.raises(Conflict, match="jobs: mine"):
        restore(new, tmp_path / "backup")
    assert not any(rows(new.database).values())


def test_a_backup_of_an_earlier_version_is_brought_to_the_present_one(
    old: Context, new: Context, tmp_path: Path
) -> None:
    command.downgrade(config(old.settings.database_url), "0007")
    back_up(old, tmp_path / "backup")
    restore(new, tmp_path / "backup")
    migrate(old.settings.database_url)
    assert rows(new.database) == rows(old.database)


def test_nobody_else_of_the_machine_can_read_a_backup(old: Context, tmp_path: Path) -> None:
    back_up(old, tmp_path / "backup")
    assert (tmp_path / "backup").stat().st_mode & 0o777 == 0o700
    for file in (tmp_path / "backup").rglob("*.gz"):
        assert file.stat().st_mode & 0o777 == 0o600


def test_files_are_found_wherever_a_row_names_them() -> None:
    file = {"key": "a/b", "sha256": "0" * 64, "size": 1}
    assert [each.key for each in named_by({"id": 1, "deep": {"x": [{"y": file}]}})] == ["a/b"]
    assert [each.media_type for each in named_by({**file, "media_type": "text/csv"})] == ["text/csv"]
    assert list(named_by({"files": {"x": file}, "removed_at": 1})) == []


def test_deliveries_that_wait_still_wait(old: Context, new: Context, tmp_path: Path) -> None:
    (hook,) = webhooks.list_all(old.database, ADA)
    webhooks.ping(old.database, ADA, hook["id"])
    back_up(old, tmp_path / "backup")
    restore(new, tmp_path / "backup")
    claimed = outbox.claim(new.database)
    assert claimed is not None
    assert claimed.webhook is not None
    assert claimed.webhook.url == "https://lab.example.org/"
