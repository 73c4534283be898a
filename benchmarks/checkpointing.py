"""P12: how long the loop stands still for a checkpoint that a thread writes, and how much longer an epoch takes."""

import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.timing import Figure, Ratio, compare
from bgpanet.compute import choose_compute
from bgpanet.losses import DualTailedLoss
from bgpanet.models import build_model
from bgpanet.specs import TrainingSpec
from bgpanet.training.checkpoints import Snapshot, save_checkpoint
from bgpanet.training.optimizer import state_tensors
from bgpanet.training.writer import CheckpointWriter

SIZE, PAIRS = 224, 7
WRITING_SECONDS = 5.0  # of steps, in which the checkpoint is written


def measure() -> Iterator[tuple[str, Ratio | Figure]]:
    """(goal, what was measured)."""
    trained = _Trained()
    with tempfile.TemporaryDirectory() as name, CheckpointWriter(Path(name) / "beside", lambda event: None) as writer:
        yield "P12", _standing_still(trained, Path(name) / "in the loop", writer)
        yield "P12, epochs", _longer(trained, writer)


class _Trained:
    """bgpanet with AdamW's state, on the device of this machine."""

    def __init__(self) -> None:
        self.compute = choose_compute("auto")
        device = self.compute.device
        batch = 128 if device.type == "cuda" else 2
        self.model = build_model("bgpanet", 7).to(device).to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4)
        self.loss = DualTailedLoss(1000).to(device)
        self.images, self.labels = torch.randn(batch, 3, SIZE, SIZE, device=device), torch.arange(batch) % 7
        self.labels = self.labels.to(device)
        self.step()

    def step(self) -> None:
        with self.compute.autocast():
            logits = self.model(self.images)
        value = self.loss(logits, self.labels)
        self.optimizer.zero_grad(set_to_none=True)
        value.backward()
        self.optimizer.step()
        value.item()  # waits for a GPU

    def snapshot(self) -> Snapshot:
        return Snapshot(self.model.state_dict(), state_tensors(self.optimizer, self.model), {}, {})

    def gigabytes(self) -> float:
        found = self.snapshot()
        return sum(tensor.nbytes for part in (found.model, found.optimizer) for tensor in part.values()) / 1e9


def _standing_still(trained: _Trained, folder: Path, writer: CheckpointWriter) -> Ratio:
    stood = 0.0

    def beside() -> None:
        nonlocal stood
        begun = time.perf_counter()
        writer.write(1, 0, trained.snapshot())
        stood += time.perf_counter() - begun
        writer.wait()  # the loop goes on meanwhile

    def in_the_loop() -> None:
        nonlocal stood
        begun = time.perf_counter()
        save_checkpoint(folder, 1, 0, trained.snapshot())
        stood += time.perf_counter() - begun

    return compare(
        f"the loop stands still for a checkpoint of {trained.gigabytes():.2f} GB that a thread writes", beside,
        "that it writes itself", in_the_loop, PAIRS, lambda: stood,
    )  # fmt: skip


def _longer(trained: _Trained, writer: CheckpointWriter) -> Figure:
    """The seconds that a checkpoint adds to the steps beside which it is written, over those between checkpoints."""
    begun = time.perf_counter()
    trained.step()
    steps = max(1, round(WRITING_SECONDS / (time.perf_counter() - begun)))
    added = []
    for number in range(PAIRS):
        seconds = {}
        for writes in (True, False) if number % 2 else (False, True):
            begun = time.perf_counter()
            if writes:
                writer.write(number, 0, trained.snapshot())
            for _ in range(steps):
                trained.step()
            writer.wait()
            seconds[writes] = time.perf_counter() - begun
        added.append(seconds[True] - seconds[False])
    between = TrainingSpec().checkpoint_seconds
    what = f"an epoch with a checkpoint every {between:g} s (bgpanet at {SIZE}) over one without, {PAIRS} pairs"
    return Figure(what, 1 + statistics.median(added) / between)
