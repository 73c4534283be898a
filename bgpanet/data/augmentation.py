"""Random changes of training images, drawn for each image and computed where the images are: on a GPU in batches, on a
CPU one by one, so that an image stays in its cache from the first operation to the last.

Distributions are torchvision's: flips with a probability; brightness, contrast, saturation by a factor from
[1 - x, 1 + x], hue shifted by a part of the colour circle from [-x, x], these four in a random order for each image.
What is drawn follows from (seed, epoch, step, position in the batch) alone, so a resumed run draws the same.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from bgpanet.specs import AugmentationSpec

MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)
"""Of ImageNet, by channel, for values in [0, 1]."""
GREY = (0.2989, 0.587, 0.114)
"""Luma of ITU-R BT.601, in the digits that torchvision uses."""
TINY = torch.finfo(torch.float32).tiny


def normalise(images_BHWC: Tensor) -> Tensor:  # noqa: N803
    """uint8 (B, H, W, 3) to float32 (B, 3, H, W) with ImageNet's mean and deviation, channels-last in memory."""
    made = torch.empty(images_BHWC.shape, device=images_BHWC.device)
    mean, deviation = (torch.tensor(values, device=made.device).repeat(made.shape[2]) for values in (MEAN, DEVIATION))
    for part in _parts(images_BHWC):
        rows = made[part].flatten(2)  # (b, H, W * 3): long rows are what a CPU is fast at
        rows.copy_(images_BHWC[part].flatten(2)).div_(255).sub_(mean).div_(deviation)
    return made.permute(0, 3, 1, 2)


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
    mean, deviation = (torch.tensor(values, device=device)[:, None, None] for values in (MEAN, DEVIATION))
    made = torch.empty(images_BHWC.shape, device=device).permute(0, 3, 1, 2)
    for part in _parts(images_BHWC):
        planes = images_BHWC[part].permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
        _change(planes.div_(255), drawn.part(part))
        made[part] = planes.sub_(mean).div_(deviation)
    return made


def _parts(images: Tensor) -> Iterator[slice]:
    """What of a batch is worked on at once."""
    size = len(images) if images.device.type == "cuda" else 1
    return (slice(start, start + size) for start in range(0, len(images), size))


def _change(planes: Tensor, drawn: "_Drawn") -> None:
    """Changes images (b, 3, H, W) in [0, 1] in place, each as was drawn for it."""
    _apply(planes, np.flatnonzero(drawn.horizontal), lambda images: images.copy_(images.flip(3)))
    _apply(planes, np.flatnonzero(drawn.vertical), lambda images: images.copy_(images.flip(2)))
    for turn in range(len(OPERATIONS)):
        for number in np.unique(drawn.order[:, turn]):
            if drawn.active[number]:
                chosen = np.flatnonzero(drawn.order[:, turn] == number)
                factors = torch.from_numpy(drawn.factors[chosen, number, None, None, None]).to(planes.device)
                _apply(planes, chosen, partial(OPERATIONS[number], factor=factors))


def _apply(images: Tensor, chosen: np.ndarray, operation: Callable[[Tensor], object]) -> None:
    """Applies what works in place to some of the images."""
    if len(chosen) == len(images):
        operation(images)
    elif len(chosen):
        positions = torch.from_numpy(chosen).to(images.device)
        some = images[positions]
        operation(some)
        images[positions] = some


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


def adjust_brightness(images: Tensor, factor: Tensor) -> None:
    """clip(factor * x), in place, as all of these. images: (B, 3, H, W) in [0, 1]; factor: (B, 1, 1, 1)."""
    images.mul_(factor).clamp_(0, 1)


def adjust_contrast(images: Tensor, factor: Tensor) -> None:
    """Blends with the mean of the grey image."""
    weights = torch.tensor(GREY, device=images.device)
    mean = (images.mean(dim=(2, 3)) * weights).sum(dim=1)
    images.mul_(factor).add_(mean[:, None, None, None] * (1 - factor)).clamp_(0, 1)


def adjust_saturation(images: Tensor, factor: Tensor) -> None:
    """Blends with the grey image."""
    red, green, blue = images.unbind(dim=1)
    grey = (red * GREY[0]).add_(green, alpha=GREY[1]).add_(blue, alpha=GREY[2])
    images.mul_(factor).add_(grey[:, None].mul_(1 - factor)).clamp_(0, 1)


def adjust_hue(images: Tensor, factor: Tensor) -> None:
    """Turns the hue by `factor` of a full circle, through HSV.

    With the channels scaled to r, g, b in [0, 1], the largest 1 and the smallest 0, a hue is 1 - r + g + b sixths of
    the circle away from red, on green's side where g >= b. Back again, each channel follows the same trapezium around
    the circle, a third of a turn apart (Smith 1978). Without masks and branches: those cost more than arithmetic.
    """
    red, green, blue = images.unbind(dim=1)
    largest = torch.maximum(red, green)
    torch.maximum(largest, blue, out=largest)
    smallest = torch.minimum(red, green)
    torch.minimum(smallest, blue, out=smallest)
    spread = largest.sub_(smallest)
    from_red = (green + blue).sub_(red).sub_(smallest).div_(spread.clamp(min=TINY)).add_(1)
    turn = torch.copysign(from_red, green - blue).div_(6).add_(1 + factor[:, 0]).frac_()
    for channel, centre in ((1, 1 / 3), (2, 2 / 3)):
        away = (turn - centre).abs_().clamp_(1 / 6, 1 / 3).mul_(-6).add_(2)
        torch.addcmul(smallest, away, spread, out=images[:, channel])
    away = turn.sub_(1 / 2).abs_().clamp_(1 / 6, 1 / 3).mul_(6).sub_(1)
    torch.addcmul(smallest, away, spread, out=images[:, 0])


OPERATIONS: tuple[Callable[..., None], ...] = (
    adjust_brightness,
    adjust_contrast,
    adjust_saturation,
    adjust_hue,
)


@dataclass(frozen=True)
class _Drawn:
    """What was drawn for B images: flips (B,), factors (B, 4), the order of the operations (B, 4)."""

    horizontal: np.ndarray
    vertical: np.ndarray
    factors: np.ndarray
    order: np.ndarray
    active: tuple[bool, ...]

    def part(self, of: slice) -> "_Drawn":
        return _Drawn(self.horizontal[of], self.vertical[of], self.factors[of], self.order[of], self.active)


def _draw(rows: np.ndarray, spec: AugmentationSpec, seed: int, epoch: int, step: int) -> _Drawn:
    rng = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, epoch, step]))
    # One row an image, so that an image's numbers do not depend on how many others are in the batch.
    uniform = rng.random((int(rows.max(initial=-1)) + 1, 10))[rows]
    reach = np.array([spec.brightness, spec.contrast, spec.saturation, spec.hue])
    centre = np.array([1.0, 1.0, 1.0, 0.0])
    return _Drawn(
        horizontal=uniform[:, 0] < spec.horizontal_flip,
        vertical=uniform[:, 1] < spec.vertical_flip,
        factors=(centre + (2 * uniform[:, 2:6] - 1) * reach).astype(np.float32),
        order=np.argsort(uniform[:, 6:], axis=1),
        active=tuple(bool(x) for x in reach > 0),
    )
