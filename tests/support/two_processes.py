"""What two processes under torchrun do for `test_distributed.py`: python -m tests.support.two_processes FOLDER."""

import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from bgpanet.compute import Compute
from bgpanet.errors import Interrupted, InvalidInput, NonFiniteLoss
from bgpanet.events import Event, Metrics
from bgpanet.inference import infer_logits
from bgpanet.losses import DualTailedLoss, Loss, WeightedCrossEntropy
from bgpanet.models import build_model
from bgpanet.models.zoo import top_of
from bgpanet.specs import AugmentationSpec, TrainingSpec
from bgpanet.training.checkpoints import list_checkpoints
from bgpanet.training.distributed import Processes, infer_together, join
from bgpanet.training.fit import fit
from bgpanet.training.step import rows_needed, train_step
from bgpanet.training.task import State, Task

TRAIN, VALIDATION, BATCH, EPOCHS = 15, 9, 7, 2  # batches of 7 (odd), 7 and 1 (less than there are processes)
STEPS = 6
LEARNING_RATE = 1e-4
EVERYTHING: dict[str, Any] = {
    "clip_norm": 1.0, "ema_decay": 0.9, "sampling": "balanced", "freeze_epochs": 0.5, "layer_decay": 0.8,
}  # fmt: skip


def task(processes: Processes, model: nn.Module | None = None, loss: Loss | None = None, **training: Any) -> Task:
    """A small net and images without any meaning."""
    torch.manual_seed(0)
    values = {"epochs": EPOCHS, "batch_size": BATCH, "learning_rate": LEARNING_RATE, "warmup_epochs": 0.5}
    return Task(
        model=model or build_model("bgpanet_micro", 3),
        loss=loss or DualTailedLoss(STEPS),
        pixels=np.random.default_rng(0).integers(0, 256, (TRAIN + VALIDATION, 32, 32, 3), dtype=np.uint8),
        labels=np.arange(TRAIN + VALIDATION) ** 2 % 7 % 3,
        train=np.arange(TRAIN),
        validation=np.arange(TRAIN, TRAIN + VALIDATION),
        training=TrainingSpec(**{**values, "checkpoint_seconds": 0, **training}),
        augmentation=AugmentationSpec(),
        compute=Compute(torch.device("cpu"), "fp32", 1, processes.count),
        fingerprint="this run",
        top=top_of("bgpanet_micro") if model is None else ("4",),
        processes=processes,
    )


def plain(processes: Processes) -> Task:
    return task(processes)


def weighted(processes: Processes, **training: Any) -> Task:
    """Two processes of two images at a time do what one does with four."""
    loss = WeightedCrossEntropy(STEPS, [1, 5, 9])
    return task(processes, loss=loss, micro_batch_size=4 // processes.count, mixup_alpha=0.3, **training)


def everything(processes: Processes) -> Task:
    return weighted(processes, **EVERYTHING)


def chance(processes: Processes) -> Task:
    """A net with dropout."""
    torch.manual_seed(1)
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 3))
    return task(processes, net)


SAME: dict[str, Callable[[Processes], Task]] = {"plain": plain, "everything": everything, "chance": chance}
"""Runs that must come out the same from one process and from two."""


def gradients(processes: Processes, images: int) -> dict[str, Tensor]:
    """Of the first step, on so many images."""
    made = weighted(processes)
    _step(made, images)
    return {name: value.grad for name, value in made.model.named_parameters() if value.grad is not None}


def _step(made: Task, images: int) -> None:
    rows = rows_needed(made, 0, 0, images)
    train_step(made, torch.from_numpy(made.pixels[:images][rows]), torch.from_numpy(made.labels[:images]), State())


def train(made: Task, folder: Path, stop: Callable[[], bool] = lambda: False) -> tuple[dict[str, Tensor], list[float]]:
    """(weights, averages and validation logits; every figure that was said, in order)."""
    figures: list[float] = []

    def report(event: Event) -> None:
        if isinstance(event, Metrics):
            figures.extend(event.values.values())

    fitted = fit(made, folder, report, stop)
    made.model.load_state_dict(fitted.weights)
    logits = infer_together(made.processes, made.model, made.pixels, made.validation, BATCH, made.compute)
    return {**fitted.weights, "logits": torch.from_numpy(logits)}, figures


class Killed(BaseException):
    """A death, of both processes at the same step, after which nothing of the run's own code is done."""


def _killed_at(step: int) -> Callable[[], bool]:
    left = step

    def stop() -> bool:
        nonlocal left
        left -= 1
        if left == 0:
            raise Killed
        return False

    return stop


def main(output: Path) -> None:
    """Every check; the first process writes what came out, each whether what it alone can see is right."""
    processes = join()
    assert processes.count == 2
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    results: dict[str, Tensor] = {}
    said: dict[str, list[float]] = {}
    for name, make in SAME.items():
        tensors, said[name] = train(make(processes), output / name)
        results |= {f"{name}/{key}": value for key, value in tensors.items()}
    for images in (BATCH, 1):
        results |= {f"gradients of {images}/{name}": value for name, value in gradients(processes, images).items()}
    results |= {f"again/{key}": value for key, value in _killed_twice(processes, output / "again").items()}
    if processes.leads:
        save_file({name: value.contiguous() for name, value in results.items()}, output / "results.safetensors")
        (output / "said.json").write_text(json.dumps(said))
    _stop_together(processes, output / "stopped")
    _no_update_by_what_is_no_number(processes)
    _batch_normalisation_is_refused(processes)
    _one_image_is_inferred(processes)
    assert processes.total(float(processes.is_first_to_fail())) == 1
    (output / f"pid-{processes.number}").write_text(str(os.getpid()))
    processes.wait()
    if not processes.leads:
        os.kill(os.getpid(), signal.SIGKILL)
    processes.wait()  # for one that has died
    (output / "survived").touch()


def _killed_twice(processes: Processes, folder: Path) -> dict[str, Tensor]:
    for step in (2, 3):
        try:
            train(plain(processes), folder, _killed_at(step))
        except Killed:
            processes.wait()  # both are dead before either begins again: the first one's last checkpoint is written
    return train(plain(processes), folder)[0]


def _stop_together(processes: Processes, folder: Path) -> None:
    """One of them is asked to stop after its second step, and both do."""
    asked = iter([False, not processes.leads, True])
    with pytest.raises(Interrupted, match="stopped after step 2"):
        train(task(processes, checkpoint_seconds=1000), folder, lambda: next(asked))
    assert [path.name for path in list_checkpoints(folder)] == ["step-00000002-epoch-0000"]


def _no_update_by_what_is_no_number(processes: Processes) -> None:
    """One of them has a loss that is no number, and neither updates its weights."""
    made = plain(processes)
    if not processes.leads:
        made.model.register_forward_hook(lambda module, inputs, output: output * float("nan"))
    before = {name: value.clone() for name, value in made.model.state_dict().items()}
    with pytest.raises(NonFiniteLoss) as caught:
        _step(made, BATCH)
    assert processes.go_on_after(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in made.model.state_dict().items())
    assert made.optimizer.state_dict()["state"] == {}


def _batch_normalisation_is_refused(processes: Processes) -> None:
    with pytest.raises(InvalidInput, match="batch normalisation"):
        replace(plain(processes), model=nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)), top=("1",))


def _one_image_is_inferred(processes: Processes) -> None:
    """Of which one of them has none."""
    made = plain(processes)
    found = infer_together(processes, made.model, made.pixels, made.validation[:1], BATCH, made.compute)
    wanted = infer_logits(made.model, made.pixels, made.validation[:1], BATCH, made.compute)
    assert np.array_equal(found, wanted)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
