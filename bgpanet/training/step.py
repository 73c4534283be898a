"""One optimizer step."""

import hashlib
import math

import numpy as np
import torch

from bgpanet.compute import out_of_memory
from bgpanet.data.augmentation import augment, mix, partners
from bgpanet.errors import NonFiniteLoss
from bgpanet.training.distributed import Part, gradients_stay, parts, rows_of
from bgpanet.training.optimizer import freeze, rest, set_rate
from bgpanet.training.task import State, Task

LEAST_SCALE = 2.0**-20
"""Of an fp16 loss: below it steps are left out for ever, and a run would end with weights that learned nothing."""


def rows_needed(task: Task, epoch: int, step_of_epoch: int, batch: int) -> np.ndarray:
    """The rows of a batch whose images this process needs, ascending: its own, and what mixup mixes them with."""
    own = rows_of(_parts(task, batch))
    partner, _ = partners(batch, task.training.mixup_alpha, task.training.seed, epoch, step_of_epoch)
    return np.union1d(own, partner[own])


def train_step(task: Task, images_BHWC: torch.Tensor, labels_B: torch.Tensor, state: State) -> float:  # noqa: N803
    """One optimizer step on a batch of uint8 images. Returns the loss and advances `state` and the loss's schedule.

    The batch passes the device in parts of `micro_batch_size`; the gradient is that of the mean over all of it. Among
    several processes labels are the whole batch's, images those of `rows_needed`, and the loss is that of all.

    Raises:
        NonFiniteLoss: before the weights are touched.
        OutOfMemory: with the number of images that did not fit.
    """
    training = task.training
    # What layers draw comes from the global generator; seeding it for each step leaves no state to be saved.
    torch.manual_seed(_step_seed(training.seed, state.step))
    rate = task.rate(state.step)
    set_rate(task.optimizer, rate)
    if training.freeze_epochs and task.processes.count == 1:
        freeze(task.model, task.depths, task.is_frozen(state.step))
    task.model.train()
    task.optimizer.zero_grad(set_to_none=True)
    todo = _parts(task, len(labels_B))
    with out_of_memory(max(part.stop - part.start for part in todo)):
        value = _gradients(task, images_BHWC, labels_B, todo, state)
        if not math.isfinite(value):
            raise NonFiniteLoss(f"the loss became {value} at step {state.step + 1}, learning rate {rate:.3g}")
        if training.freeze_epochs and task.processes.count > 1 and task.is_frozen(state.step):
            rest(task.model, task.depths)
        _update(task, state.step, rate)
    task.loss.step()
    state.step += 1
    state.step_of_epoch += 1
    if task.average is not None:
        task.average.update(task.model, state.step)
    return value


def _gradients(
    task: Task,
    images_BHWC: torch.Tensor,  # noqa: N803
    labels_B: torch.Tensor,  # noqa: N803
    todo: list[Part],
    state: State,
) -> float:
    """Leaves the gradient of the batch's loss with the parameters, and returns that loss."""
    training, processes, device = task.training, task.processes, task.compute.device
    rows = own = None
    if processes.count > 1:
        rows, own = rows_needed(task, state.epoch, state.step_of_epoch, len(labels_B)), rows_of(todo)
    draw = training.seed, state.epoch, state.step_of_epoch
    images = augment(images_BHWC.to(device), task.augmentation, *draw, rows)
    labels = labels_B.to(device)
    images, others, share = mix(images, labels, training.mixup_alpha, *draw, rows, own)
    losses, done = [], 0
    for part in todo:
        task.present.part = part
        with gradients_stay(task.forward, processes, stay=part is not todo[-1]):
            with task.compute.autocast():
                logits = task.forward(images[done : done + part.stop - part.start])
            loss = _share_of_mean(task, logits, labels, part)
            if share < 1:
                loss = share * loss + (1 - share) * _share_of_mean(task, logits, others, part)
            # Gradients are averaged over the processes, and the loss is the sum of theirs.
            torch.autograd.backward(task.scaler.scale(loss * processes.count))
        losses.append(loss.detach())
        done += part.stop - part.start
    return processes.total(sum(loss.item() for loss in losses))


def _parts(task: Task, batch: int) -> list[Part]:
    return parts(batch, task.training.micro_batch_size or batch, task.processes)


def _share_of_mean(task: Task, logits: torch.Tensor, labels: torch.Tensor, part: Part) -> torch.Tensor:
    """What the images of a part add to the loss of the whole batch."""
    own = labels[part.rows]
    loss: torch.Tensor = task.loss(logits, own)
    return loss * (task.loss.amount(own) / (task.loss.amount(labels) * part.copies))


def _update(task: Task, step: int, rate: float) -> None:
    """Applies the gradients, clipped where that was asked for."""
    task.scaler.unscale_(task.optimizer)
    parameters = [parameter for parameter in task.model.parameters() if parameter.grad is not None]
    norm = torch.nn.utils.clip_grad_norm_(parameters, task.training.clip_norm or math.inf)
    # With fp16 an overflow is expected now and then: the scaler leaves such a step out and scales less.
    if not task.scaler.is_enabled() and not norm.isfinite():
        raise NonFiniteLoss(f"the gradient became {norm.item()} at step {step + 1}, learning rate {rate:.3g}")
    task.scaler.step(task.optimizer)
    task.scaler.update()
    if task.scaler.is_enabled() and task.scaler.get_scale() < LEAST_SCALE:
        told = f"the gradients of the last steps up to step {step + 1} were not finite, however little they were scaled"
        raise NonFiniteLoss(f"{told}; take bf16")


def _step_seed(seed: int, step: int) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed}/{step}".encode(), digest_size=8).digest(), "big") >> 1
