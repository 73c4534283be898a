"""Intervals of figures by a bootstrap over groups: G lesions or patients, not images.

Images of one lesion are near copies of each other. Drawing them as if they were independent would count each copy as
new evidence and print intervals that are too narrow.
"""

import numpy as np
import numpy.typing as npt

from bgpanet.errors import InvalidInput, Problem
from bgpanet.evaluation.metrics import FloatArray, IntArray, checked, macro_figures

FIGURES = ("accuracy", "balanced_accuracy", "macro_f1")
# Weights that are held at once, group draws: 4 million are 32 MB.
_CHUNK = 4_000_000


def grouped_intervals(
    y_true: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    groups: npt.ArrayLike,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """Percentile intervals (low, high) of accuracy, balanced_accuracy and macro_f1.

    A resample draws G of the G groups with replacement, each with all its images (Davison & Hinkley 1997, section
    3.8, strategy 1). A class that a resample misses is left out of its means over classes, as in the point figure.
    The same seed gives the same intervals.

    y_true, groups: (n,); probabilities: (n, K). `groups` are names or numbers.

    Raises:
        InvalidInput: as `classification_metrics`; or fewer than two groups, over which nothing can vary.
    """
    y, p = checked(y_true, probabilities)
    counts = _tallies_of_groups(y, p.argmax(axis=1), _group_indices(groups, len(y), resamples, confidence), p.shape[1])
    rng = np.random.default_rng(seed)
    step = max(1, _CHUNK // len(counts))
    drawn = [_resample(counts, min(step, resamples - start), rng) for start in range(0, resamples, step)]
    hits, support, predicted = np.moveaxis(np.concatenate(drawn), 1, 0)
    figures = macro_figures(hits, support, predicted)
    ends = ((1 - confidence) / 2, (1 + confidence) / 2)
    intervals = {name: np.quantile(figures[name], ends) for name in FIGURES}
    return {name: (float(low), float(high)) for name, (low, high) in intervals.items()}


def _group_indices(groups: npt.ArrayLike, n: int, resamples: int, confidence: float) -> IntArray:
    """(n,) numbers 0…G-1 of the images' groups."""
    names = np.asarray(groups)
    problems = []
    if names.shape != (n,):
        problems.append(Problem("groups", f"must name one group for each of {n} images; got shape {names.shape}"))
    elif len(np.unique(names)) < 2:
        problems.append(Problem("groups", "an interval over groups needs at least 2 of them; all images are of one"))
    if resamples < 1:
        problems.append(Problem("resamples", f"must be at least 1; got {resamples}"))
    if not 0 < confidence < 1:
        problems.append(Problem("confidence", f"must lie strictly between 0 and 1; got {confidence}"))
    if problems:
        raise InvalidInput(problems)
    indices: IntArray = np.unique(names, return_inverse=True)[1]
    return indices


def _tallies_of_groups(y: IntArray, predicted: IntArray, groups: IntArray, k: int) -> FloatArray:
    """(G, 3, K): hits, images and predictions of each class in each group.

    The three figures need no more of a group's (K, K) confusion matrix. As float64, in which products with the
    weights are exact and fast.
    """
    g, right = int(groups.max()) + 1, y == predicted
    occurrences = [(groups[right], y[right]), (groups, y), (groups, predicted)]
    counts = [np.bincount(group * k + kind, minlength=g * k).reshape(g, k) for group, kind in occurrences]
    return np.stack(counts, axis=1).astype(np.float64)


def _resample(counts: FloatArray, resamples: int, rng: np.random.Generator) -> IntArray:
    """(resamples, 3, K): the tallies of so many draws of G groups."""
    g = len(counts)
    # How often each group is drawn; one draw a row, so that the size of a chunk does not change the stream.
    weights = np.empty((resamples, g))
    for row in weights:
        row[:] = np.bincount(rng.integers(g, size=g), minlength=g)
    totals: FloatArray = weights @ counts.reshape(g, -1)
    return totals.astype(np.int64).reshape(resamples, *counts.shape[1:])
