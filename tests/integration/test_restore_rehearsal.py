"""The rehearsal: a product with trainings on SQLite and a folder is backed up while it runs, restored into PostgreSQL
and S3, and goes on there."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from bgpanet.data import synthetic
from services import datasets, jobs, tokens, views
from services.artifacts import S3Store, sha256_of
from services.backups import OF_PROCESSES, back_up
from services.claims import NewJob
from services.context import Context
from services.datasets import Registration
from services.migration import migrate
from services.restoring import restore
from services.settings import Settings
from services.tables import Base, Checkpoint
from tests.support.cluster import ADMIN, Cluster, cluster, tiny_spec


def ended(product: Cluster, job_id: str) -> dict[str, Any] | None:
    job = views.get_job(product.context.database, ADMIN, job_id)
    return job if job["state"] in ("succeeded", "failed", "cancelled") else None


def submit(product: Cluster, dataset_id: str, name: str, epochs: int) -> str:
    values: dict[str, Any] = {"name": name, "spec": tiny_spec(epochs), "dataset_id": dataset_id, "created_by": "ada"}
    return jobs.submit(product.context.database, NewJob(kind="train", **values))[0]


def everything(product: Cluster) -> dict[str, list[tuple[Any, ...]]]:
    with product.context.database.read() as session:
        return {
            table.name: sorted((tuple(row) for row in session.execute(select(table))), key=repr)
            for table in Base.metadata.sorted_tables
            if table.name not in OF_PROCESSES
        }


def test_a_product_is_backed_up_and_goes_on_elsewhere(
    s3: Any, postgres_url: str, valkey_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.secret_key)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    folders = {name: tmp_path / name for name in ("old", "new", "images")}
    for folder in folders.values():
        folder.mkdir()
    synthetic.draw(folders["images"], lesions=40, seed=3)
    small = {"BGPANET_HOME": str(folders["old"]), "BGPANET_REDIS_URL": valkey_url, "BGPANET_LEASE_SECONDS": "5"}
    with cluster(Settings.load(small), folders["old"]) as old:
        parts = [old.scheduler(), old.worker("old")]
        asked = Registration(name="lesions", format="ham10000", folder=str(folders["images"]))
        dataset_id, _ = datasets.register(old.context, ADMIN, asked)
        finished = submit(old, dataset_id, "finished", 2)
        assert old.until(lambda: ended(old, finished), "the first training")["state"] == "succeeded"
        running = submit(old, dataset_id, "running", 100)

        def checkpoint() -> int | None:
            with old.context.database.read() as session:
                return session.scalar(select(Checkpoint.step).where(Checkpoint.job_id == running))

        old.until(checkpoint, "a checkpoint of the second training")
        made = back_up(old.context, tmp_path / "backup")
        assert made.missing == []
        for part in parts:
            part.kill()

        large = replace(
            Settings.load(small),
            home=folders["new"],
            database_url=postgres_url,
            artifacts_url=f"s3://{s3.bucket}/restored",
            s3_endpoint_url=s3.endpoint_url,
        )
        again = back_up(old.context, tmp_path / "backup")  # of what stands still now
        with cluster(large, folders["new"]) as new:
            done = restore(new.context, tmp_path / "backup", again.folder.name)
            assert done.dropped == 0
            assert everything(new) == everything(old)
            for artifact in views.list_artifacts(new.context.database, ADMIN, finished):
                path = tmp_path / "artifact"
                key = views.get_artifact(new.context.database, ADMIN, finished, artifact["name"]).key
                new.context.store.get_file(key, path)
                assert sha256_of(path) == artifact["sha256"]
            before = views.get_job(new.context.database, ADMIN, running)
            new.scheduler()
            new.worker("new")
            last = new.until(lambda: ended(new, running), "the second training, elsewhere", 300)
            assert (last["state"], last["attempt"]) == ("succeeded", before["attempt"] + 1)
            attempts = views.list_attempts(new.context.database, ADMIN, running)
            assert attempts[-1]["resumed_from_step"] > 0
            third = submit(new, dataset_id, "third", 2)
            assert new.until(lambda: ended(new, third), "a training on the restored data set")["state"] == "succeeded"


def test_a_bucket_that_is_not_there_is_made(s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a new host nothing has run before, and `bgpanet prepare`, which makes it, would leave no empty database."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.secret_key)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    old = Context(Settings.load({"BGPANET_HOME": str(tmp_path / "old")}))
    missing = {"BGPANET_ARTIFACTS_URL": f"s3://{s3.bucket}-new", "BGPANET_S3_ENDPOINT_URL": s3.endpoint_url}
    new = Context(Settings.load({"BGPANET_HOME": str(tmp_path / "new"), **missing}))
    migrate(old.settings.database_url)
    tokens.create(old.database, "first", "ada", "admin", "secret of ada's")
    back_up(old, tmp_path / "backup")
    assert restore(new, tmp_path / "backup").rows == 1
    assert tokens.verify(new.database, "secret of ada's") is not None
    assert isinstance(new.store, S3Store)
    assert not new.store.exists("ready")
    new.store._client.close()
    for made in (old, new):
        made.database.close()
        made.celery.close()
