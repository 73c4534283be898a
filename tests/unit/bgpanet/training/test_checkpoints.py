import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bgpanet.errors import CheckpointError
from bgpanet.training.checkpoints import (
    MANIFEST,
    Snapshot,
    list_checkpoints,
    load_checkpoint,
    newest_valid,
    save_checkpoint,
)

FILES = ["best.safetensors", "manifest.json", "model.safetensors", "optimizer.safetensors", "state.json"]


def snapshot(step: int) -> Snapshot:
    def tensors(shift: float) -> dict[str, Tensor]:
        return {"a": torch.arange(6.0).view(2, 3).t() + step + shift, "n": torch.tensor(step)}

    return Snapshot(tensors(0), tensors(0.5), tensors(0.25), {"step": step, "text": "é"})


def same(one: Snapshot, other: Snapshot) -> bool:
    return one.state == other.state and all(
        mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)
        for mine, theirs in ((one.model, other.model), (one.optimizer, other.optimizer), (one.best, other.best))
    )


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, 12, 3, snapshot(12))
    assert path.name == "step-00000012-epoch-0003"
    assert sorted(file.name for file in path.iterdir()) == FILES
    assert same(load_checkpoint(path), snapshot(12))


def test_without_a_best_there_is_none_afterwards(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, 1, 0, Snapshot({"a": torch.ones(1)}, {}, {}, {}))
    assert (load_checkpoint(path).best, load_checkpoint(path).optimizer) == ({}, {})


def test_the_newest_two_are_kept(tmp_path: Path) -> None:
    for step in (3, 1, 2, 9, 10):
        save_checkpoint(tmp_path, step, 0, snapshot(step))
    assert [path.name[5:13] for path in list_checkpoints(tmp_path)] == ["00000009", "00000010"]


def test_one_that_is_kept_stays_beside_the_newest_two(tmp_path: Path) -> None:
    for step in range(1, 7):
        save_checkpoint(tmp_path, step, step, snapshot(step), kept=step in (2, 6))
    found = list_checkpoints(tmp_path)
    assert [path.name[5:13] for path in found] == ["00000002", "00000005", "00000006"]
    assert same(load_checkpoint(found[0]), snapshot(2))


def test_who_dies_while_an_old_one_is_deleted_leaves_no_half_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that copied the half would take it for a checkpoint."""

    class Killed(BaseException):
        pass

    def killed_half_way(path: Path, ignore_errors: bool = False) -> None:
        if path.exists():
            sorted(path.iterdir())[0].unlink()
            raise Killed

    for step in (1, 2):
        save_checkpoint(tmp_path, step, 0, snapshot(step))
    monkeypatch.setattr("bgpanet.training.checkpoints.shutil.rmtree", killed_half_way)
    with pytest.raises(Killed):
        save_checkpoint(tmp_path, 3, 0, snapshot(3))
    whole = sorted(path for path in tmp_path.iterdir() if not path.name.startswith("."))
    assert [path.name[5:13] for path in whole] == ["00000002", "00000003"]
    assert [same(load_checkpoint(path), snapshot(step)) for path, step in zip(whole, (2, 3), strict=True)] == [True] * 2


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 5, 0, snapshot(1))
    path = save_checkpoint(tmp_path, 5, 0, snapshot(2))
    assert same(load_checkpoint(path), snapshot(2))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["flipped bit", "cut", "gone", "empty"])
def test_damage_of_any_file_is_seen_and_the_one_before_is_used(tmp_path: Path, name: str, damage: str) -> None:
    save_checkpoint(tmp_path, 1, 0, snapshot(1))
    file = save_checkpoint(tmp_path, 2, 0, snapshot(2)) / name
    content = bytearray(file.read_bytes())
    if damage == "flipped bit":
        content[len(content) // 2] ^= 0x10
    file.write_bytes(b"" if damage == "empty" else content[: len(content) // 2] if damage == "cut" else content)
    if damage == "gone":
        file.unlink()
    found = newest_valid(tmp_path)
    assert found is not None
    path, loaded, wrong = found
    assert path.name.startswith("step-00000001")
    assert same(loaded, snapshot(1))
    assert len(wrong) == (0 if (name, damage) == (MANIFEST, "gone") else 1)


def test_where_all_are_damaged_there_is_none(tmp_path: Path) -> None:
    (save_checkpoint(tmp_path, 1, 0, snapshot(1)) / "state.json").unlink()
    assert newest_valid(tmp_path) is None
    assert newest_valid(tmp_path / "nothing") is None


def test_a_manifest_can_not_name_a_file_elsewhere(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, 1, 0, snapshot(1))
    manifest = json.loads((path / MANIFEST).read_text())
    manifest["files"]["../outside"] = manifest["files"]["state.json"]
    shutil.copy(path / "state.json", tmp_path / "outside")
    (path / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="does not match"):
        load_checkpoint(path)


def test_a_write_that_died_is_no_checkpoint(tmp_path: Path) -> None:
    whole = save_checkpoint(tmp_path, 1, 0, snapshot(1))
    partial = shutil.copytree(whole, tmp_path / "step-00000009-epoch-0000")
    (partial / MANIFEST).unlink()
    shutil.copytree(whole, tmp_path / ".step-00000010-epoch-0000.77")
    assert list_checkpoints(tmp_path) == [whole]


def test_a_failing_write_leaves_the_older_ones_and_no_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(tmp_path, 1, 0, snapshot(1))

    def full(*args: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bgpanet.training.checkpoints.save_file", full)
    with pytest.raises(CheckpointError, match="No space left"):
        save_checkpoint(tmp_path, 2, 0, snapshot(2))
    assert [path.name[5:13] for path in tmp_path.iterdir()] == ["00000001"]
