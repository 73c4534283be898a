"""Applying a network to images of the pixel cache."""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from bgpanet.compute import Compute, out_of_memory
from bgpanet.data.augmentation import normalise
from bgpanet.data.batches import batches


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
    model.eval()
    labels = np.zeros(len(pixels), dtype=np.int64)
    parts: list[np.ndarray] = []
    done = 0
    with torch.inference_mode():
        for _, chosen, images, _ in batches(pixels, labels, positions, batch_size):
            with out_of_memory(len(chosen)), compute.autocast():
                logits = model(normalise(images.to(compute.device)))
            parts.append(logits.float().cpu().numpy())
            done += len(chosen)
            if progress is not None:
                progress(done)
    return np.concatenate(parts) if parts else np.zeros((0, 0), dtype=np.float32)


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
