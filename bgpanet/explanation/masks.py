"""How far a map agrees with an expert's lesion mask. All figures are of one image; a map's scale plays no part.

A lesion is where a classifier of lesions should look, but a map that always points to the middle does well on
centred lesions too: read these figures beside those of `centred_disc`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from bgpanet.errors import InvalidInput
from bgpanet.evaluation.bootstrap import draws


@dataclass(frozen=True)
class Overlap:
    """Agreement of a map with a mask.

    energy: the share of the map's sum that lies inside the mask, over the mask's share of the area. 1: no better than
    a map that is the same everywhere; NaN for a map that is 0 everywhere. A map that is nowhere near 0, such as M_s,
    has an energy near 1 whatever it prefers; the other two ask for the order of values alone.
    iou: intersection over union of the mask and the map's largest values, as many positions as the mask has. Where
    equal values compete for the last places, each gets an equal part of them, so a constant map is worth what a
    random choice is worth on average.
    pointing: whether the map's largest value lies inside the mask (the pointing game of Zhang et al., IJCV 2018,
    without tolerance); with several largest values the share of them that does.
    """

    energy: float
    iou: float
    pointing: float


def overlap(map_HW: npt.ArrayLike, mask_HW: npt.ArrayLike) -> Overlap:  # noqa: N803
    """The agreement of a map, values of 0 and more, with a mask, true inside the lesion, of the same size.

    Raises:
        InvalidInput: sizes differ, the map has negative or no finite values, or the mask is empty or everything.
    """
    values = np.asarray(map_HW, dtype=np.float64)
    inside = np.asarray(mask_HW, dtype=bool)
    if values.shape != inside.shape or values.ndim != 2:
        raise InvalidInput.one("map", f"must be of the mask's size, {inside.shape}, not {values.shape}")
    if not np.isfinite(values).all() or values.min() < 0:
        raise InvalidInput.one("map", "must have finite values of 0 and more")
    area = int(inside.sum())
    if not 0 < area < inside.size:
        raise InvalidInput.one("mask", "must have positions inside and outside of the lesion")
    total = values.sum()
    energy = math.nan if total == 0 else float(values[inside].sum() / total * inside.size / area)
    largest = values == values.max()
    return Overlap(energy, _iou_of_largest(values, inside, area), float(inside[largest].mean()))


def _iou_of_largest(values: np.ndarray, inside: np.ndarray, area: int) -> float:
    last = np.partition(values.ravel(), -area)[-area]
    above, tied = values > last, values == last
    hits = inside[above].sum() + (area - above.sum()) * inside[tied].mean()
    return float(hits / (2 * area - hits))


def centred_disc(height: int, width: int) -> np.ndarray:
    """A map that knows nothing of the image, (H, W) float32 in [0, 1]: 1 in the middle, falling linearly to 0 at the
    corners, in an ellipse of the frame's aspect."""
    y, x = np.meshgrid(_middles(height), _middles(width), indexing="ij")
    return np.asarray(1 - np.hypot(y, x) / math.sqrt(2), dtype=np.float32)


def _middles(count: int) -> np.ndarray:
    return (np.arange(count) + 0.5) / count * 2 - 1


@dataclass(frozen=True)
class Mean:
    """A mean over images with its interval; images: how many have the figure at all."""

    mean: float
    low: float
    high: float
    images: int


def means(
    overlaps: Sequence[Overlap],
    groups: Sequence[str],
    against: Sequence[Overlap] | None = None,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, Mean]:
    """Each figure's mean over images, with a percentile interval by a bootstrap over groups (lesions).

    against: other maps of the same images; then of the difference, image by image. Images without the figure are left
    out of it.

    Raises:
        InvalidInput: not a group, or no counterpart, for every image; or fewer than two groups.
    """
    if len(groups) != len(overlaps) or (against is not None and len(against) != len(overlaps)):
        raise InvalidInput.one("groups", f"one for each of {len(overlaps)} images, and as many maps to compare with")
    index = np.unique(np.asarray(groups), return_inverse=True)[1]
    if len(set(groups)) < 2:
        raise InvalidInput.one("groups", "an interval over groups needs at least 2 of them")
    found = {}
    for name in (field.name for field in fields(Overlap)):
        values = np.array([getattr(one, name) for one in overlaps])
        if against is not None:
            values = values - np.array([getattr(one, name) for one in against])
        found[name] = _mean(values, index, draws(resamples, index.max() + 1, np.random.default_rng(seed)), confidence)
    return found


def _mean(values: np.ndarray, index: np.ndarray, weights: np.ndarray, confidence: float) -> Mean:
    has = np.isfinite(values)
    groups = weights.shape[1]
    sums = np.bincount(index[has], weights=values[has], minlength=groups)
    counts = np.bincount(index[has], minlength=groups)
    if not has.any():
        return Mean(math.nan, math.nan, math.nan, 0)
    with np.errstate(invalid="ignore"):
        drawn = (weights @ sums) / (weights @ counts)
    low, high = np.nanquantile(drawn, ((1 - confidence) / 2, (1 + confidence) / 2))
    return Mean(float(values[has].mean()), float(low), float(high), int(has.sum()))
