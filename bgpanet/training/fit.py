"""The training loop. `fit` reads top to bottom: restore, epochs of steps, validate, keep the best, checkpoint.

Everything random follows from (seed, epoch, step), so a run that was killed and goes on from a checkpoint does exactly
what it would have done: on a CPU it ends with the same bits.
"""

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from bgpanet.data.batches import balanced_order, batches, epoch_order
from bgpanet.errors import Interrupted, NonFiniteLoss
from bgpanet.evaluation.metrics import classification_metrics
from bgpanet.events import Metrics, Progress, Report
from bgpanet.inference import cross_entropy, softmax
from bgpanet.training.distributed import infer_together
from bgpanet.training.history import is_kept, remember
from bgpanet.training.resume import restore, write_checkpoint
from bgpanet.training.step import rows_needed, train_step
from bgpanet.training.task import State, Task
from bgpanet.training.writer import CheckpointWriter

MAX_POINTS = 2000  # of a curve over steps; more can't be seen
PROGRESS_SECONDS = 0.25


@dataclass(frozen=True)
class Fitted:
    """A finished fit: the weights kept, and the state at the end."""

    weights: dict[str, torch.Tensor]
    state: State


def fit(task: Task, folder: Path, report: Report, stop: Callable[[], bool] = lambda: False) -> Fitted:
    """Trains to the end, going on from the newest whole checkpoint in `folder`.

    Raises:
        Interrupted: `stop()` became true; a checkpoint was written.
        NonFiniteLoss, OutOfMemory, CheckpointError.
    """
    state, best = restore(task, folder, report)
    clock = _Clock(state.step)
    if _is_over(task, state):
        return Fitted(best, state)
    with CheckpointWriter(folder, report) as writer:
        while not _is_over(task, state):
            order = _order(task, state.epoch)
            for _, chosen, images, labels in batches(
                task.pixels,
                task.labels,
                order,
                task.training.batch_size,
                state.step_of_epoch,
                task.compute.device,
                rows=None if task.processes.count == 1 else partial(rows_needed, task, state.epoch),
            ):
                loss = train_step(task, images, labels, state)
                state.loss_sum += loss * len(chosen)
                state.images_seen += len(chosen)
                _say_step(task, state, loss, report, clock)
                stopping = task.processes.any(stop())
                if stopping or clock.checkpoint_due(task.training.checkpoint_seconds, writer.is_busy()):
                    write_checkpoint(task, writer, state, best)
                    clock.checkpointed()
                if stopping:
                    writer.wait()
                    task.processes.wait()  # one that ends has the others ended, and the first may still write
                    raise Interrupted(f"stopped after step {state.step}; the checkpoint of that step is written")
            best = _end_epoch(task, state, best, report)
            kept = task.training.is_kept(state.epoch)
            if kept or _is_over(task, state):
                write_checkpoint(task, writer, state, best, kept)
                clock.checkpointed()
        writer.wait()
    return Fitted(best, state)


def _is_over(task: Task, state: State) -> bool:
    return state.stopped_early or state.epoch >= task.training.epochs


def _order(task: Task, epoch: int) -> np.ndarray:
    """Positions of the images of an epoch, in order."""
    if task.training.sampling == "balanced":
        return balanced_order(task.train, task.labels, task.training.seed, epoch)
    return epoch_order(task.train, task.training.seed, epoch)


def validate(task: Task) -> dict[str, float]:
    """Figures on the validation part. The loss is plain cross-entropy, whatever is trained with: the weighted loss
    falls with its own schedule and would compare epochs by different measures.

    Raises:
        NonFiniteLoss: the weights have become useless.
    """
    logits = infer_together(
        task.processes, task.model, task.pixels, task.validation, task.training.images_at_once, task.compute
    )
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
    """Validates, keeps the weights (or their average) if they are the best so far, decides on stopping early."""
    with nullcontext() if task.average is None else task.average.applied(task.model):
        figures = validate(task)
        monitor = task.training.monitor
        value = -figures["validation_loss"] if monitor == "loss" else figures[f"validation_{monitor}"]
        is_best = state.best_value is None or value > state.best_value
        if is_best:
            best = {name: tensor.detach().cpu().clone() for name, tensor in task.model.state_dict().items()}
    state.epoch += 1
    state.epochs_without_improvement += 1
    if is_best:
        state.best_value, state.best_step, state.best_epoch = value, state.step, state.epoch
        state.best_loss_weight_focal = task.loss.curves().get("loss_weight_focal")
        state.epochs_without_improvement = 0
    state.stopped_early = state.epochs_without_improvement >= task.training.patience
    epoch_loss = state.loss_sum / state.images_seen
    figures["train_loss_of_epoch"] = epoch_loss
    report(Metrics(step=state.step, epoch=state.epoch, values=figures))
    if is_kept(state.epoch, task.training.epochs):
        remember(state.curves, state.step, figures)
    state.step_of_epoch, state.loss_sum, state.images_seen = 0, 0.0, 0
    return best


# ── What is said ──────────────────────────────────────────────────────────────────────────────────────────────────


class _Clock:
    """Wall-clock time of this process: for ETA and checkpoints, never for what is computed."""

    def __init__(self, first_step: int) -> None:
        self.first_step = first_step
        self.begin = self.last_checkpoint = time.monotonic()
        self.last_progress = -math.inf

    def eta(self, step: int, total: int) -> float:
        return (time.monotonic() - self.begin) / (step - self.first_step) * (total - step)

    def checkpoint_due(self, seconds: float, one_is_written: bool) -> bool:
        """One that is being written postpones the next, unless every step is to have its own."""
        return seconds == 0 or (not one_is_written and time.monotonic() - self.last_checkpoint >= seconds)

    def checkpointed(self) -> None:
        self.last_checkpoint = time.monotonic()

    def progress_due(self) -> bool:
        due = time.monotonic() - self.last_progress >= PROGRESS_SECONDS
        if due:
            self.last_progress = time.monotonic()
        return due


def _say_step(task: Task, state: State, loss: float, report: Report, clock: _Clock) -> None:
    step, total = state.step, task.total_steps
    is_said = step % (total // MAX_POINTS + 1) == 0 or step == total
    if is_said or is_kept(step, total):
        values = {"train_loss": loss, "learning_rate": task.rate(step - 1), **task.loss.curves()}
        if is_said:
            report(Metrics(step=step, epoch=state.epoch, values=values))
        if is_kept(step, total):
            remember(state.curves, step, values)
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
