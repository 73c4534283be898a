"""Batches out of the pixel cache, in an order that follows from (seed, epoch)."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor


def epoch_order(positions: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """The positions in the order of an epoch: a permutation that needs no state."""
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, epoch + 1])).permutation(positions)


def batches(
    pixels: np.ndarray, labels: np.ndarray, order: np.ndarray, batch_size: int, first_step: int = 0
) -> Iterator[tuple[int, np.ndarray, Tensor, Tensor]]:
    """(step, positions (B,), uint8 images (B, H, W, 3), int64 labels (B,)) from step `first_step` on, from 0.

    Every image comes once; the last batch may be smaller.
    """
    for step in range(first_step, -(-len(order) // batch_size)):
        chosen = order[step * batch_size : (step + 1) * batch_size]
        yield step, chosen, torch.from_numpy(pixels[chosen]), torch.from_numpy(labels[chosen])
