"""Batches out of the pixel cache, in an order that follows from (seed, epoch), on the device before they are needed."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

Tag = TypeVar("Tag")
CPU = torch.device("cpu")


def epoch_order(positions: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """The positions in the order of an epoch: a permutation that needs no state."""
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, epoch + 1])).permutation(positions)


def balanced_order(positions: np.ndarray, labels: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """As many draws as there are positions, with replacement: a class first, each as likely, then one of its images."""
    rng = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 1, epoch + 1]))
    order = np.argsort(labels[positions], kind="stable")
    classes, begins, counts = np.unique(labels[positions][order], return_index=True, return_counts=True)
    drawn = rng.integers(len(classes), size=len(positions))
    return np.asarray(positions[order[begins[drawn] + rng.integers(counts[drawn])]])


def batches(
    pixels: np.ndarray,
    labels: np.ndarray,
    order: np.ndarray,
    batch_size: int,
    first_step: int = 0,
    device: torch.device = CPU,
    rows: Callable[[int, int], np.ndarray] | None = None,
) -> Iterator[tuple[int, np.ndarray, Tensor, Tensor]]:
    """(step, positions (B,), uint8 images (B, H, W, 3), int64 labels (B,)) from step `first_step` on, from 0.

    Every image comes once; the last batch may be smaller. Both tensors are on `device`. While a batch is worked on, a
    thread gathers the next one and, for a GPU, copies it there beside the computation. With `rows`, only the images of
    the rows that it names for a step and the size of its batch are read.
    """

    def gathered() -> Iterator[tuple[tuple[int, np.ndarray], tuple[Tensor, ...]]]:
        for step in range(first_step, -(-len(order) // batch_size)):
            chosen = order[step * batch_size : (step + 1) * batch_size]
            read = chosen if rows is None else chosen[rows(step, len(chosen))]
            yield (step, chosen), (torch.from_numpy(pixels[read]), torch.from_numpy(labels[chosen]))

    for (step, chosen), (images, of_them) in on_device(gathered(), device):
        yield step, chosen, images, of_them


def on_device(
    source: Iterator[tuple[Tag, tuple[Tensor, ...]]], device: torch.device
) -> Iterator[tuple[Tag, tuple[Tensor, ...]]]:
    """The same (tag, tensors of the CPU) on `device`. A thread takes them from `source`, one ahead of the caller.

    Copies to a GPU have a stream of their own, so they wait for no computation; what is yielded can be used in the
    caller's stream.
    """
    stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def take() -> tuple[Tag, tuple[Tensor, ...], torch.cuda.Event | None] | None:
        item = next(source, None)
        if item is None:
            return None
        tag, tensors = item
        if stream is None:
            return tag, tensors, None
        with torch.cuda.stream(stream):  # also makes its GPU this thread's
            moved = tuple(tensor.pin_memory().to(device, non_blocking=True) for tensor in tensors)
            return tag, moved, stream.record_event()

    with ThreadPoolExecutor(1, thread_name_prefix="feed") as thread:
        coming = thread.submit(take)
        while (taken := coming.result()) is not None:
            coming = thread.submit(take)
            tag, tensors, copied = taken
            if copied is not None:
                current = torch.cuda.current_stream(device)
                current.wait_event(copied)
                for tensor in tensors:
                    tensor.record_stream(current)  # its memory is not given to a later copy before it was used
            yield tag, tensors
