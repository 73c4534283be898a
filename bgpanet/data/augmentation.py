"""Random changes of training images, drawn for each image and computed in batches where the images are.

Distributions are torchvision's: flips with a probability; brightness, contrast, saturation by a factor from
[1 - x, 1 + x], hue shifted by a part of the colour circle from [-x, x], these four in a random order for each image.
What is drawn follows from (seed, epoch, step, position in the batch) alone, so a resumed run draws the same.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bgpanet.specs import AugmentationSpec

MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)
"""Of ImageNet, by channel, for values in [0, 1]."""
GREY = (0.2989, 0.587, 0.114)
"""Luma of ITU-R BT.601, in the digits that torchvision uses."""


def normalise(images_BHWC: Tensor) -> Tensor:  # noqa: N803
    """uint8 (B, H, W, 3) to float32 (B, 3, H, W) with ImageNet's mean and deviation, channels-last in memory."""
    return _normalised(images_BHWC.float().div_(255))


def augment(
    images_BHWC: Tensor,  # noqa: N803
    spec: AugmentationSpec,
    seed: int,
    epoch: int,
    step: int,
    rows: np.ndarray | None = None,
) -> Tensor:
    """Like `normalise`, changed at random. `step` counts within the epoch; `rows` are the images' places in the batch,
    null: they are all of it."""
    drawn = _draw(np.arange(len(images_BHWC)) if rows is None else rows, spec, seed, epoch, step)
    device = images_BHWC.device
    images = images_BHWC.float().div_(255)
    images = _flipped(images, drawn.horizontal.to(device), 2)
    images = _flipped(images, drawn.vertical.to(device), 1)
    for turn in range(len(OPERATIONS)):
        for number, operation in enumerate(OPERATIONS):
            chosen = torch.from_numpy(np.flatnonzero(drawn.order[:, turn] == number)).to(device)
            if len(chosen) and drawn.active[number]:
                factors = drawn.factors[number].to(device)[chosen, None, None]
                images[chosen] = operation(images[chosen], factors)
    return _normalised(images)


def partners(batch: int, alpha: float, seed: int, epoch: int, step: int) -> tuple[np.ndarray, float]:
    """The row that each image of a batch is mixed with, and its own share, ~ Beta(alpha, alpha), one for a batch. With
    alpha 0 every image is its own partner."""
    if alpha == 0:
        return np.arange(batch), 1.0
    rng = np.random.Generator(np.random.Philox(key=seed, counter=[0, 1, epoch, step]))
    share = float(rng.beta(alpha, alpha))
    return rng.permutation(batch), share


def mix(
    images: Tensor,
    labels: Tensor,
    alpha: float,
    seed: int,
    epoch: int,
    step: int,
    rows: np.ndarray | None = None,
    wanted: np.ndarray | None = None,
) -> tuple[Tensor, Tensor, float]:
    """Mixup (Zhang et al., ICLR 2018): (images, other labels, share), images = share x + (1 - share) x of another.

    The loss is share L(labels) + (1 - share) L(other labels). With alpha 0 nothing is mixed and share is 1. Labels are
    the batch's; images are those of its ascending `rows`, of which the `wanted` ones come back. Null: all.
    """
    if alpha == 0:
        return images, labels, 1.0
    partner, share = partners(len(labels), alpha, seed, epoch, step)
    others = labels[torch.from_numpy(partner).to(labels.device)]
    everything = np.arange(len(labels))
    rows, wanted = everything if rows is None else rows, everything if wanted is None else wanted
    own, other = (torch.from_numpy(np.searchsorted(rows, at)).to(images.device) for at in (wanted, partner[wanted]))
    return torch.lerp(images[other], images[own], share), others, share


def adjust_brightness(images: Tensor, factor: Tensor) -> Tensor:
    """clip(factor * x). images: (B, H, W, 3) in [0, 1]; factor: (B, 1, 1)."""
    return (images * factor[..., None]).clamp_(0, 1)


def adjust_contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Blends with the mean of the grey image."""
    return _blend(images, _grey(images).mean(dim=(1, 2), keepdim=True), factor)


def adjust_saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Blends with the grey image."""
    return _blend(images, _grey(images), factor)


def adjust_hue(images: Tensor, shift: Tensor) -> Tensor:
    """Turns the hue by `shift` of a full circle, (B, 1, 1), through HSV."""
    largest, smallest = images.amax(dim=-1), images.amin(dim=-1)
    spread = largest - smallest
    red, green, blue = images.unbind(dim=-1)
    safe = torch.where(spread > 0, spread, torch.ones_like(spread))
    hue = torch.where(
        largest == red,
        (green - blue) / safe,
        torch.where(largest == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    hue = (hue / 6 + shift).remainder(1.0)
    # Each channel follows the same trapezium around the circle, a third of a turn apart (Smith 1978).
    corners = torch.tensor([5.0, 3.0, 1.0], device=images.device)
    k = (hue[..., None] * 6 + corners).remainder(6.0)
    return largest[..., None] - spread[..., None] * torch.minimum(k, 4 - k).clamp_(0, 1)


OPERATIONS: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (
    adjust_brightness,
    adjust_contrast,
    adjust_saturation,
    adjust_hue,
)


@dataclass(frozen=True)
class _Drawn:
    """What was drawn for B images: flips (B,), factors (4, B), the order of the operations (B, 4)."""

    horizontal: Tensor
    vertical: Tensor
    factors: Tensor
    order: np.ndarray
    active: tuple[bool, ...]


def _draw(rows: np.ndarray, spec: AugmentationSpec, seed: int, epoch: int, step: int) -> _Drawn:
    rng = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, epoch, step]))
    # One row an image, so that an image's numbers do not depend on how many others are in the batch.
    uniform = rng.random((int(rows.max(initial=-1)) + 1, 10))[rows]
    reach = np.array([spec.brightness, spec.contrast, spec.saturation, spec.hue])
    centre = np.array([1.0, 1.0, 1.0, 0.0])
    factors = centre + (2 * uniform[:, 2:6] - 1) * reach
    return _Drawn(
        horizontal=torch.from_numpy(uniform[:, 0] < spec.horizontal_flip),
        vertical=torch.from_numpy(uniform[:, 1] < spec.vertical_flip),
        factors=torch.from_numpy(factors.T.astype(np.float32)),
        order=np.argsort(uniform[:, 6:], axis=1),
        active=tuple(bool(x) for x in reach > 0),
    )


def _flipped(images: Tensor, chosen: Tensor, axis: int) -> Tensor:
    return torch.where(chosen[:, None, None, None], images.flip(axis), images)


def _grey(images: Tensor) -> Tensor:
    return (images * torch.tensor(GREY, device=images.device)).sum(dim=-1, keepdim=True)


def _blend(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    return torch.lerp(other.expand_as(images), images, factor[..., None]).clamp_(0, 1)


def _normalised(images: Tensor) -> Tensor:
    mean, deviation = (torch.tensor(values, device=images.device) for values in (MEAN, DEVIATION))
    return images.sub_(mean).div_(deviation).permute(0, 3, 1, 2)
