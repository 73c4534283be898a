"""The training loop. `fit` reads top to bottom: restore, epochs of steps, validate, keep the best, checkpoint.

Everything random follows from (seed, epoch, step), so a run that was killed and goes on from a checkpoint does exactly
what it would have done: on a CPU it ends with the same bits.
"""

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from bgpanet.compute import Compute
from bgpanet.data.augmentation import augment
from bgpanet.data.batches import batches, epoch_order
from bgpanet.errors import CheckpointError, Interrupted, NonFiniteLoss, OutOfMemory
from bgpanet.evaluation.metrics import classification_metrics
from bgpanet.events import CheckpointWritten, Log, Metrics, Progress, Report, Started
from bgpanet.inference import cross_entropy, infer_logits, softmax
from bgpanet.losses import Loss
from bgpanet.specs import AugmentationSpec, TrainingSpec
from bgpanet.training.checkpoints import Snapshot, newest_valid, save_checkpoint
from bgpanet.training.schedule import learning_rate

MAX_POINTS = 2000  # of a curve over steps; more can't be seen
PROGRESS_SECONDS = 0.25


@dataclass
class Task:
    """What is fitted to what.

    pixels: uint8 (N, S, S, 3); labels: int64 (N,); train, validation: positions into both.
    fingerprint: identifies spec and data; a checkpoint of another one is refused.
    """

    model: nn.Module
    loss: Loss
    pixels: np.ndarray
    labels: np.ndarray
    train: np.ndarray
    validation: np.ndarray
    training: TrainingSpec
    augmentation: AugmentationSpec
    compute: Compute
    fingerprint: str

    def __post_init__(self) -> None:
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=self.training.learning_rate, weight_decay=self.training.weight_decay
        )

    @property
    def steps_per_epoch(self) -> int:
        return steps_per_epoch(len(self.train), self.training)

    @property
    def total_steps(self) -> int:
        return self.steps_per_epoch * self.training.epochs


@dataclass
class State:
    """Where a run stands; plain numbers, kept in every checkpoint."""

    step: int = 0  # optimizer steps done
    epoch: int = 0  # epochs finished, validation included
    step_of_epoch: int = 0
    loss_sum: float = 0.0  # over the images of this epoch
    images_seen: int = 0  # of this epoch
    best_value: float | None = None  # of the monitor; larger is better
    best_step: int = 0
    best_epoch: int = 0
    best_loss_weight_focal: float | None = None  # beta of the Dual-Tailed Loss
    epochs_without_improvement: int = 0
    stopped_early: bool = False


@dataclass(frozen=True)
class Fitted:
    """A finished fit: the weights kept, and the state at the end."""

    weights: dict[str, torch.Tensor]
    state: State


def steps_per_epoch(images: int, training: TrainingSpec) -> int:
    """Optimizer steps of an epoch; the last batch may be smaller."""
    return math.ceil(images / training.batch_size)


def fit(task: Task, folder: Path, report: Report, stop: Callable[[], bool] = lambda: False) -> Fitted:
    """Trains to the end, going on from the newest whole checkpoint in `folder`.

    Raises:
        Interrupted: `stop()` became true; a checkpoint was written.
        NonFiniteLoss, OutOfMemory, CheckpointError.
    """
    state, best = _restore(task, folder, report)
    clock = _Clock(state.step)
    if _is_over(task, state):
        return Fitted(best, state)
    while not _is_over(task, state):
        order = epoch_order(task.train, task.training.seed, state.epoch)
        for _, chosen, images, labels in batches(
            task.pixels, task.labels, order, task.training.batch_size, first_step=state.step_of_epoch
        ):
            loss = train_step(task, images, labels, state)
            state.loss_sum += loss * len(chosen)
            state.images_seen += len(chosen)
            _say_step(task, state, loss, report, clock)
            stopping = stop()
            if stopping or clock.checkpoint_due(task.training.checkpoint_seconds):
                _checkpoint(task, folder, state, best, report)
                clock.checkpointed()
            if stopping:
                raise Interrupted(f"stopped after step {state.step}; the checkpoint of that step is written")
        best = _end_epoch(task, state, best, report)
    _checkpoint(task, folder, state, best, report)
    return Fitted(best, state)


def _is_over(task: Task, state: State) -> bool:
    return state.stopped_early or state.epoch >= task.training.epochs


def train_step(task: Task, images_BHWC: torch.Tensor, labels_B: torch.Tensor, state: State) -> float:  # noqa: N803
    """One optimizer step on a batch of uint8 images. Returns the loss and advances `state` and the loss's schedule.

    Raises:
        NonFiniteLoss: before the weights are touched.
        OutOfMemory: with the batch size that did not fit.
    """
    training, device = task.training, task.compute.device
    # Stochastic depth draws from the global generator; seeding it for each step leaves no state to be saved.
    torch.manual_seed(_step_seed(training.seed, state.step))
    rate = _rate(task, state.step)
    for group in task.optimizer.param_groups:
        group["lr"] = rate
    task.model.train()
    try:
        images = augment(images_BHWC.to(device), task.augmentation, training.seed, state.epoch, state.step_of_epoch)
        with task.compute.autocast():
            logits = task.model(images)
        loss = task.loss(logits, labels_B.to(device))
        value = float(loss.item())
        if not math.isfinite(value):
            raise NonFiniteLoss(f"the loss became {value} at step {state.step + 1}, learning rate {rate:.3g}")
        task.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        task.optimizer.step()
    except torch.OutOfMemoryError as error:
        raise OutOfMemory(f"a batch of {len(labels_B)} images does not fit the device's memory") from error
    task.loss.step()
    state.step += 1
    state.step_of_epoch += 1
    return value


def validate(task: Task) -> dict[str, float]:
    """Figures on the validation part. The loss is plain cross-entropy, whatever is trained with: the weighted loss
    falls with its own schedule and would compare epochs by different measures.

    Raises:
        NonFiniteLoss: the weights have become useless.
    """
    logits = infer_logits(task.model, task.pixels, task.validation, task.training.batch_size, task.compute)
    if not np.isfinite(logits).all():
        raise NonFiniteLoss("the network's answers on the validation part are not finite; lower the learning rate")
    labels = task.labels[task.validation]
    figures = classification_metrics(labels, softmax(logits))
    return {
        "validation_loss": cross_entropy(logits, labels),
        "validation_balanced_accuracy": figures["balanced_accuracy"],
        "validation_accuracy": figures["accuracy"],
    }


def _end_epoch(task: Task, state: State, best: dict[str, torch.Tensor], report: Report) -> dict[str, torch.Tensor]:
    """Validates, keeps the weights if they are the best so far, decides on stopping early."""
    figures = validate(task)
    monitor = task.training.monitor
    value = -figures["validation_loss"] if monitor == "loss" else figures[f"validation_{monitor}"]
    state.epoch += 1
    state.epochs_without_improvement += 1
    if state.best_value is None or value > state.best_value:
        best = {name: tensor.detach().cpu().clone() for name, tensor in task.model.state_dict().items()}
        state.best_value, state.best_step, state.best_epoch = value, state.step, state.epoch
        state.best_loss_weight_focal = task.loss.curves().get("loss_weight_focal")
        state.epochs_without_improvement = 0
    state.stopped_early = state.epochs_without_improvement >= task.training.patience
    epoch_loss = state.loss_sum / state.images_seen
    report(Metrics(step=state.step, epoch=state.epoch, values={**figures, "train_loss_of_epoch": epoch_loss}))
    state.step_of_epoch, state.loss_sum, state.images_seen = 0, 0.0, 0
    return best


def _rate(task: Task, step: int) -> float:
    warmup = min(round(task.training.warmup * task.steps_per_epoch), task.total_steps - 1)
    return learning_rate(
        step, task.total_steps, warmup, task.training.learning_rate, task.training.minimum_learning_rate
    )


def _step_seed(seed: int, step: int) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed}/{step}".encode(), digest_size=8).digest(), "big") >> 1


# ── What is said ──────────────────────────────────────────────────────────────────────────────────────────────────


class _Clock:
    """Wall-clock time of this process: for ETA and checkpoints, never for what is computed."""

    def __init__(self, first_step: int) -> None:
        self.first_step = first_step
        self.begin = self.last_checkpoint = time.monotonic()
        self.last_progress = -math.inf

    def eta(self, step: int, total: int) -> float:
        return (time.monotonic() - self.begin) / (step - self.first_step) * (total - step)

    def checkpoint_due(self, seconds: float) -> bool:
        return time.monotonic() - self.last_checkpoint >= seconds

    def checkpointed(self) -> None:
        self.last_checkpoint = time.monotonic()

    def progress_due(self) -> bool:
        due = time.monotonic() - self.last_progress >= PROGRESS_SECONDS
        if due:
            self.last_progress = time.monotonic()
        return due


def _say_step(task: Task, state: State, loss: float, report: Report, clock: _Clock) -> None:
    step, total = state.step, task.total_steps
    if step % (total // MAX_POINTS + 1) == 0 or step == total:
        values = {"train_loss": loss, "learning_rate": _rate(task, step - 1), **task.loss.curves()}
        report(Metrics(step=step, epoch=state.epoch, values=values))
    if clock.progress_due() or step == total:
        report(
            Progress(
                fraction=step / total,
                step=step,
                steps=total,
                epoch=state.epoch + 1,
                epochs=task.training.epochs,
                eta_seconds=clock.eta(step, total),
                message=f"loss {loss:.3f}",
            )
        )


# ── Checkpoints ───────────────────────────────────────────────────────────────────────────────────────────────────


def _checkpoint(task: Task, folder: Path, state: State, best: dict[str, torch.Tensor], report: Report) -> None:
    snapshot = Snapshot(
        model=task.model.state_dict(),
        optimizer={**_optimizer_tensors(task), **{f"loss.{k}": v for k, v in task.loss.state_dict().items()}},
        best=best,
        state={"fingerprint": task.fingerprint, "compute": task.compute.describe(), "position": asdict(state)},
    )
    path = save_checkpoint(folder, state.step, state.epoch, snapshot)
    report(CheckpointWritten(path=str(path), step=state.step, epoch=state.epoch))


def _restore(task: Task, folder: Path, report: Report) -> tuple[State, dict[str, torch.Tensor]]:
    found = newest_valid(folder)
    if found is None:
        report(Started(step=0))
        return State(), {}
    path, snapshot, wrong = found
    for problem in wrong:
        report(Log(level="warning", message=f"an older checkpoint is used: {problem}"))
    if snapshot.state["fingerprint"] != task.fingerprint:
        raise CheckpointError(f"{path} belongs to another run (other spec or data); take an empty output folder")
    task.model.load_state_dict(dict(snapshot.model))
    task.loss.load_state_dict({k.removeprefix("loss."): v for k, v in snapshot.optimizer.items() if _of_loss(k)})
    _load_optimizer(task, {k: v for k, v in snapshot.optimizer.items() if not _of_loss(k)})
    state = State(**snapshot.state["position"])
    report(Started(step=state.step))
    report(Log(message=f"going on after step {state.step}, epoch {state.epoch}"))
    return state, dict(snapshot.best)


def _of_loss(key: str) -> bool:
    return key.startswith("loss.")


def _optimizer_tensors(task: Task) -> dict[str, torch.Tensor]:
    """AdamW's state by the names of the parameters: `exp_avg/<name>` and the like."""
    return {
        f"{key}/{name}": value
        for name, parameter in task.model.named_parameters()
        for key, value in task.optimizer.state[parameter].items()
    }


def _load_optimizer(task: Task, tensors: dict[str, torch.Tensor]) -> None:
    number = {name: i for i, (name, _) in enumerate(task.model.named_parameters())}
    entries: dict[int, dict[str, Any]] = {i: {} for i in number.values()}
    for key, value in tensors.items():
        slot, _, name = key.partition("/")
        entries[number[name]][slot] = value
    complete = task.optimizer.state_dict()
    complete["state"] = {i: entry for i, entry in entries.items() if entry}
    task.optimizer.load_state_dict(complete)
