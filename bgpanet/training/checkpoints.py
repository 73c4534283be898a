"""Checkpoints: safetensors and JSON in a folder of their own, whole or not there at all.

    step-00000120-epoch-0003/   steps and epochs done; with `-kept`: it stays when newer ones come
        model.safetensors       the network's state
        optimizer.safetensors   the optimizer's and the loss's state
        best.safetensors        the weights kept so far, once there are any
        state.json              where the run stands, and which run it is
        manifest.json           size and SHA-256 of every file above; written last

A folder is written under a temporary name and renamed; a file that does not match its digest makes the checkpoint
invalid, and the one before it is used. Nothing in it can run code.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from bgpanet.errors import CheckpointError

MANIFEST = "manifest.json"
NEWEST = 2  # that stay in any case; the newest may be the damaged one
KEPT = "-kept"


@dataclass(frozen=True)
class Snapshot:
    """Everything that a run needs to go on. `best` is empty until a first validation."""

    model: Mapping[str, torch.Tensor]
    optimizer: Mapping[str, torch.Tensor]
    best: Mapping[str, torch.Tensor]
    state: Mapping[str, Any]


def save_checkpoint(folder: Path, step: int, epoch: int, snapshot: Snapshot, kept: bool = False) -> Path:
    """Writes `folder/step-…-epoch-…` durably, and drops all but the newest two and what is `kept`. Returns its path.

    Raises:
        CheckpointError: it could not be written (disk full, for instance); older ones are untouched.
    """
    final = folder / f"step-{step:08d}-epoch-{epoch:04d}{KEPT if kept else ''}"
    partial = folder / f".{final.name}.{os.getpid()}"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for name in ("model", "optimizer", "best"):
            if tensors := getattr(snapshot, name):
                # An empty dictionary of tensors is no safetensors file; loading treats its absence as empty.
                save_file({key: value.contiguous() for key, value in tensors.items()}, partial / f"{name}.safetensors")
        (partial / "state.json").write_text(json.dumps(snapshot.state), encoding="utf-8")
        files = sorted(partial.iterdir())
        manifest = {file.name: {"sha256": _sha256(file), "size": file.stat().st_size} for file in files}
        text = json.dumps({"version": 1, "name": final.name, "files": manifest})
        (partial / MANIFEST).write_text(text, encoding="utf-8")
        for file in [*files, partial / MANIFEST, partial]:
            _sync(file)
        _drop(final)
        partial.rename(final)
        _sync(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise CheckpointError(f"checkpoint {final} could not be written: {error}") from error
    for old in list_checkpoints(folder)[:-NEWEST]:
        if not old.name.endswith(KEPT):
            _drop(old)
    return final


def list_checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints in a folder, oldest first. Their content is not checked."""
    return sorted(path for path in folder.glob("step-*") if (path / MANIFEST).is_file())


def load_checkpoint(path: Path) -> Snapshot:
    """Reads a checkpoint after checking every file against the manifest.

    Raises:
        CheckpointError: a file is missing, damaged, or not what it should be.
    """
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        files: dict[str, dict[str, Any]] = manifest["files"]
        for name, expected in files.items():
            if Path(name).name != name or _sha256(path / name) != expected["sha256"]:
                raise CheckpointError(f"{path / name} does not match the checkpoint's manifest")
        tensors = {
            name: _tensors(path / f"{name}.safetensors") if f"{name}.safetensors" in files else {}
            for name in ("model", "optimizer", "best")
        }
        return Snapshot(**tensors, state=json.loads((path / "state.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise CheckpointError(f"checkpoint {path} cannot be read: {error}") from error


def newest_valid(folder: Path) -> tuple[Path, Snapshot, list[str]] | None:
    """The newest checkpoint that is whole, and what was wrong with newer ones; None where there is none."""
    wrong: list[str] = []
    for path in reversed(list_checkpoints(folder)):
        try:
            return path, load_checkpoint(path), wrong
        except CheckpointError as error:
            wrong.append(str(error))
    return None


def saved_compute(folder: Path) -> dict[str, Any] | None:
    """Threads, precision and processes with which the run in `folder` was begun; sums of floats depend on them, so a
    resumed run keeps the first two. None where there is no checkpoint."""
    for path in reversed(list_checkpoints(folder)):
        try:
            compute = json.loads((path / "state.json").read_text(encoding="utf-8"))["compute"]
            return {
                "threads": int(compute["threads"]),
                "precision": str(compute["precision"]),
                "processes": int(compute.get("processes", 1)),
            }
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return None


def _drop(path: Path) -> None:
    """Deletes a checkpoint, which is gone at once: whoever copies it or dies meanwhile leaves no half of it behind."""
    gone = path.with_name(f".{path.name}.gone")
    shutil.rmtree(gone, ignore_errors=True)
    with contextlib.suppress(OSError):
        path.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    # Copies: training writes into them, and the file may be deleted meanwhile.
    return {name: tensor.clone() for name, tensor in load_file(path).items()}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
