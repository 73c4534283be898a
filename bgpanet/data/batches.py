"""Batches out of the pixel cache, in an order that follows from (seed, epoch)."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor


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
    rows: Callable[[int, int], np.ndarray] | None = None,
) -> Iterator[tuple[int, np.ndarray, Tensor, Tensor]]:
    """(step, positions (B,), uint8 images (B, H, W, 3), int64 labels (B,)) from step `first_step` on, from 0.

    Every image comes once; the last batch may be smaller. With `rows`, only the images of the rows that it names for a
    step and the size of its batch are read.
    """
    for step in range(first_step, -(-len(order) // batch_size)):
        chosen = order[step * batch_size : (step + 1) * batch_size]
        read = chosen if rows is None else chosen[rows(step, len(chosen))]
        yield step, chosen, torch.from_numpy(pixels[read]), torch.from_numpy(labels[chosen])
