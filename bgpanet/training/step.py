"""One optimizer step."""

import hashlib
import math

import torch

from bgpanet.compute import out_of_memory
from bgpanet.data.augmentation import augment, mix
from bgpanet.errors import NonFiniteLoss
from bgpanet.training.optimizer import freeze, set_rate
from bgpanet.training.task import State, Task


def train_step(task: Task, images_BHWC: torch.Tensor, labels_B: torch.Tensor, state: State) -> float:  # noqa: N803
    """One optimizer step on a batch of uint8 images. Returns the loss and advances `state` and the loss's schedule.

    The batch passes the device in parts of `micro_batch_size`; the gradient is that of the mean over all of it, but
    for losses that weigh images within a batch, which weigh them within a part.

    Raises:
        NonFiniteLoss: before the weights are touched.
        OutOfMemory: with the number of images that did not fit.
    """
    training, device = task.training, task.compute.device
    # Stochastic depth draws from the global generator; seeding it for each step leaves no state to be saved.
    torch.manual_seed(_step_seed(training.seed, state.step))
    rate = task.rate(state.step)
    set_rate(task.optimizer, rate)
    if training.freeze_epochs:
        freeze(task.model, task.depths, task.is_frozen(state.step))
    task.model.train()
    task.optimizer.zero_grad(set_to_none=True)
    size = training.micro_batch_size or len(labels_B)
    with out_of_memory(min(size, len(labels_B))):
        images = augment(images_BHWC.to(device), task.augmentation, training.seed, state.epoch, state.step_of_epoch)
        labels = labels_B.to(device)
        images, others, share = mix(
            images, labels, training.mixup_alpha, training.seed, state.epoch, state.step_of_epoch
        )
        value = 0.0
        for start in range(0, len(labels), size):
            part = slice(start, start + size)
            with task.compute.autocast():
                logits = task.forward(images[part])
            loss = task.loss(logits, labels[part])
            if share < 1:
                loss = share * loss + (1 - share) * task.loss(logits, others[part])
            loss = loss * (len(logits) / len(labels))
            value += float(loss.item())
            if not math.isfinite(value):
                raise NonFiniteLoss(f"the loss became {value} at step {state.step + 1}, learning rate {rate:.3g}")
            task.scaler.scale(loss).backward()
        _update(task, state.step, rate)
    task.loss.step()
    state.step += 1
    state.step_of_epoch += 1
    if task.average is not None:
        task.average.update(task.model, state.step)
    return value


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


def _step_seed(seed: int, step: int) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed}/{step}".encode(), digest_size=8).digest(), "big") >> 1
