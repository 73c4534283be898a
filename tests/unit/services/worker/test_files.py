"""What an attempt finds in its folder before it starts."""

import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from threading import Event

from bgpanet.events import CheckpointWritten
from services import jobs
from services.artifacts import sha256_of
from services.claims import Lease, StoredFile
from services.context import Context
from services.worker.files import Uploader, Workbench
from tests.unit.services.dashboard.full_service import SPEC, add_datasets, service


def test_a_cross_validation_finds_the_pictures_of_its_folds_where_they_left_some(tmp_path: Path) -> None:
    """Folds of older versions left none, and are pooled all the same."""
    with service(tmp_path) as made:
        add_datasets(made)
        made.submit("cross_validate", spec={**SPEC, "split": {"folds": 2}})
        files = {"report.json": b"{}", "predictions.parquet": b"table", "model.safetensors": b"weights"}
        made.finish(made.claim(), {}, {**files, "gallery.json": b"pictures"})
        made.finish(made.claim(), {}, files)
        bench = Workbench(made.context, made.claim())
        bench.prepare()
        found = [sorted(path.name for path in (bench.output / f"fold-{n}").iterdir()) for n in (0, 1)]
        assert found == [["gallery.json", "predictions.parquet", "report.json"], ["predictions.parquet", "report.json"]]
        assert (bench.output / "fold-0" / "gallery.json").read_bytes() == b"pictures"


def test_of_a_job_whose_newest_checkpoint_is_damaged_in_the_store_the_one_before_is_used(tmp_path: Path) -> None:
    with service(tmp_path) as made:
        add_datasets(made)
        made.submit("train")
        claim = made.claim()
        keys = [record_checkpoint(made.context, claim.lease, step, tmp_path / f"step-{step}") for step in (1, 2)]
        stored = made.context.store.local_path(keys[1])
        assert stored is not None
        stored.write_bytes(b"weights of step 3")
        jobs.release(made.context.database, claim.lease, "the worker left")
        told: list[str] = []
        bench = Workbench(made.context, made.claim(), warn=told.append)
        bench.prepare()
        assert [path.name for path in (bench.output / "checkpoints").iterdir()] == ["step-1"]
        assert told == ["the checkpoint after step 2 is damaged in the store; it is not used"]


def test_of_a_data_set_that_is_not_trusted_only_what_is_damaged_is_fetched_anew(tmp_path: Path) -> None:
    """Other attempts on this host read the same files."""
    with service(tmp_path) as made:
        add_datasets(made)
        made.submit("train")
        bench = Workbench(made.context, made.claim())
        folder = tmp_path / "fetched"
        folder.mkdir()
        for name in ("whole", "damaged"):
            (folder / name).write_bytes(name.encode())
            bench._fetched[folder / name] = StoredFile(name, sha256_of(folder / name), len(name))
        (folder / "damaged").write_bytes(b"DAMAGED")
        bench.distrust()
        assert [path.name for path in folder.iterdir()] == ["whole"]


def test_a_checkpoint_that_is_kept_is_stored_though_newer_ones_come(tmp_path: Path) -> None:
    """While the store is slow, newer checkpoints overtake older ones."""
    with service(tmp_path) as made:
        add_datasets(made)
        made.submit("train")
        claim, recorded, began, gate = made.claim(), list[int](), Event(), Event()

        def record(event: CheckpointWritten, files: Mapping[str, StoredFile]) -> None:
            began.set()
            gate.wait()
            assert files["model.safetensors"].size == event.step
            recorded.append(event.step)

        uploader = Uploader(made.context.store, claim, tmp_path / "uploading", record, warn=recorded.append)  # type: ignore[arg-type]
        uploader.start()
        for step in range(1, 7):
            folder = tmp_path / f"step-{step}"
            folder.mkdir()
            (folder / "model.safetensors").write_bytes(b"x" * step)
            uploader.checkpoint(CheckpointWritten(path=str(folder), step=step, epoch=step, kept=step in (3, 5)))
            assert began.wait(60)
        gate.set()
        uploader.close()
        assert recorded == [1, 3, 5, 6]
        assert list((tmp_path / "uploading").iterdir()) == []


def test_checkpoints_that_follow_each_other_share_no_stored_file(tmp_path: Path) -> None:
    """Their best weights are the same: a bit of them that is damaged would cost both."""
    with service(tmp_path) as made:
        add_datasets(made)
        made.submit("train")
        claim = made.claim()
        keys: list[set[str]] = []
        stored = Event()

        def record(event: CheckpointWritten, files: Mapping[str, StoredFile]) -> None:
            keys.append({file.key for file in files.values()})
            stored.set()

        uploader = Uploader(made.context.store, claim, tmp_path / "uploading", record, warn=keys.append)  # type: ignore[arg-type]
        uploader.start()
        for number, step in enumerate((1, 2, 3, 3, 4)):  # the last step of an epoch has two, one after the other
            folder = tmp_path / f"number-{number}"
            folder.mkdir()
            (folder / "best.safetensors").write_bytes(b"best")
            (folder / "state.json").write_text(str(number))
            stored.clear()
            uploader.checkpoint(CheckpointWritten(path=str(folder), step=step, epoch=step))
            assert stored.wait(60)
        uploader.close()
        assert [len(each) for each in keys] == [2] * 5
        assert all(made.context.store.exists(key) for each in keys for key in each)
        first, second, replaced, third, fourth = keys
        assert [one & other for one, other in pairwise((first, second, third, fourth))] == [set()] * 3
        assert len(replaced & third) == 1
        assert len(set().union(*keys)) == 5 + 2, "two copies of what is the same"


def record_checkpoint(context: Context, lease: Lease, step: int, folder: Path) -> str:
    """Stores and records one. Returns the key of its weights."""
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(f"weights of step {step}".encode())
    (folder / "manifest.json").write_text(json.dumps({"name": folder.name}))
    files = {}
    for path in folder.iterdir():
        sha256 = sha256_of(path)
        files[path.name] = StoredFile(f"jobs/{lease.job_id}/{lease.attempt}/{sha256}", sha256, path.stat().st_size)
        context.store.put_file(files[path.name].key, path, sha256)
    jobs.record_checkpoint(context.database, lease, step, 0, files)
    return files["model.safetensors"].key
