"""Applying a network to images of the pixel cache."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from bgpanet.compute import Compute, out_of_memory
from bgpanet.data.augmentation import normalise
from bgpanet.data.batches import batches

Tag = TypeVar("Tag")


def infer_logits(
    model: nn.Module,
    pixels: np.ndarray,
    positions: np.ndarray,
    batch_size: int,
    compute: Compute,
    progress: Callable[[int], None] | None = None,
) -> np.ndarray:
    """Logits (N, K), float32, of the images at `positions`, in that order.

    `progress` is called with the number of images done. The network is left in evaluation mode.

    Raises:
        OutOfMemory: with the batch size that did not fit.
    """
    labels = np.zeros(len(pixels), dtype=np.int64)
    feed = batches(pixels, labels, positions, batch_size, device=compute.device)
    parts: list[np.ndarray] = []
    done = 0
    for count, logits in infer_batches(model, ((len(chosen), images) for _, chosen, images, _ in feed), compute):
        parts.append(logits)
        done += count
        if progress is not None:
            progress(done)
    return np.concatenate(parts) if parts else np.zeros((0, 0), dtype=np.float32)


def infer_batches(
    model: nn.Module, feed: Iterable[tuple[Tag, Tensor]], compute: Compute
) -> Iterator[tuple[Tag, np.ndarray]]:
    """(tag, logits (B, K) float32) of each (tag, uint8 images (B, H, W, 3) on the device), in order, each as soon as it
    is there. The answer to an empty batch is (0, 0).

    A GPU is given the next batch before the answers of this one are waited for, so that it never stands still. The
    network is left in evaluation mode.

    Raises:
        OutOfMemory: with the batch size that did not fit.
    """
    model.eval()
    waiting: tuple[Tag, _Answer] | None = None
    for tag, images in feed:
        with torch.inference_mode(), out_of_memory(len(images)), compute.autocast():
            answer = _Answer(model(normalise(images)) if len(images) else torch.zeros(0, 0))
        if compute.device.type != "cuda":
            yield tag, answer.wait()
            continue
        if waiting is not None:
            yield waiting[0], waiting[1].wait()
        waiting = tag, answer
    if waiting is not None:
        yield waiting[0], waiting[1].wait()


class _Answer:
    """Logits on their way from the device, begun at once."""

    def __init__(self, logits: Tensor) -> None:
        logits = logits.float()
        self._copied: torch.cuda.Event | None = None
        self._logits = logits
        if logits.device.type == "cuda":
            self._logits = torch.empty(logits.shape, pin_memory=True).copy_(logits, non_blocking=True)
            self._copied = torch.cuda.current_stream(logits.device).record_event()

    def wait(self) -> np.ndarray:
        if self._copied is None:
            return self._logits.numpy()
        self._copied.synchronize()
        return self._logits.numpy().copy()  # the pinned pages go back to their pool: new ones wait for the GPU


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities (N, K), float64, of logits (N, K)."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean over images of -log softmax(logits)[label], nats."""
    values = logits.astype(np.float64)
    top = values.max(axis=1)
    log_sum = top + np.log(np.exp(values - top[:, None]).sum(axis=1))
    return float(np.mean(log_sum - values[np.arange(len(labels)), labels]))
