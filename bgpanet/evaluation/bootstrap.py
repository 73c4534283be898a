"""Intervals of figures by a bootstrap over groups: G lesions or patients, not images.

Images of one lesion are near copies of each other. Drawing them as if they were independent would count each copy as
new evidence and print intervals that are too narrow.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from bgpanet.errors import InvalidInput, Problem
from bgpanet.evaluation.metrics import ECE_BINS, FloatArray, IntArray, checked, image_terms, macro_figures, rank_figures

# Weights that are held at once, draws times groups or images: 4 million are 32 MB.
_CHUNK = 4_000_000


def grouped_intervals(
    y_true: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    groups: npt.ArrayLike,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """Percentile intervals (low, high) of the figures of `resampled_figures`, in its names.

    Resamples in which a figure is undefined are left out of its interval; one that is always undefined has none.

    y_true, groups: (n,); probabilities: (n, K). `groups` are names or numbers.

    Raises:
        InvalidInput: as `classification_metrics`; or fewer than two groups, over which nothing can vary.
    """
    _check(y_true, groups, resamples, confidence)
    figures = resampled_figures(y_true, probabilities, groups, resamples, seed)
    return {name: _interval(values, confidence) for name, values in figures.items() if np.isfinite(values).any()}


def resampled_figures(
    y_true: npt.ArrayLike, probabilities: npt.ArrayLike, groups: npt.ArrayLike, resamples: int = 2000, seed: int = 0
) -> Mapping[str, FloatArray]:
    """Figures of each of `resamples` draws, (resamples,) by name; NaN where a draw leaves one undefined.

    A draw takes G of the G groups with replacement, each with all its images (Davison & Hinkley 1997, section 3.8,
    strategy 1). The same seed gives the same draws. Names are those of `classification_metrics`: accuracy,
    balanced_accuracy, macro_f1, macro_precision, mcc, cohen_kappa, nll, brier, ece, auroc_macro, auprc_macro; and
    `auroc/<k>`, `auprc/<k>` of each class. A class that a draw misses is left out of its means over classes, as in the
    point figures.

    Raises:
        InvalidInput: as `grouped_intervals`.
    """
    y, p = checked(y_true, probabilities)
    _check(y, groups, resamples)
    index: IntArray = np.unique(np.asarray(groups), return_inverse=True)[1]  # (n,) numbers 0…G-1
    counts = _sums_of_groups(y, p, index)
    k = p.shape[1]
    rng = np.random.default_rng(seed)
    size = max(1, _CHUNK // max(len(counts), len(y)))
    parts = []
    for start in range(0, resamples, size):
        weights = draws(min(size, resamples - start), len(counts), rng)
        sums = weights @ counts
        parts.append({**_figures_of_sums(sums, k), **rank_figures(y, p, weights[:, index])})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _interval(values: FloatArray, confidence: float) -> tuple[float, float]:
    low, high = np.nanquantile(values, ((1 - confidence) / 2, (1 + confidence) / 2))
    return float(low), float(high)


def _check(y_true: npt.ArrayLike, groups: npt.ArrayLike, resamples: int, confidence: float = 0.5) -> None:
    n, names = len(np.asarray(y_true)), np.asarray(groups)
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


def draws(resamples: int, g: int, rng: np.random.Generator) -> FloatArray:
    """(resamples, g): how often each group is drawn; one draw a row, so that a chunk's size changes no draw."""
    weights = np.empty((resamples, g))
    for row in weights:
        row[:] = np.bincount(rng.integers(g, size=g), minlength=g)
    return weights


def _sums_of_groups(y: IntArray, p: FloatArray, groups: IntArray) -> FloatArray:
    """(G, 3K + 2 + bins): of each group what figures are made of by adding up.

    Hits, images and predictions of each class; sums of the images' nll and Brier terms; and for each bin of the top
    probability the sum of [right] - top. As float64, in which products with the weights are fast, and exact for counts.
    """
    g, k, predicted = int(groups.max()) + 1, p.shape[1], p.argmax(axis=1)
    right = y == predicted
    occurrences = [(groups[right], y[right]), (groups, y), (groups, predicted)]
    counts = [np.bincount(group * k + kind, minlength=g * k).reshape(g, k) for group, kind in occurrences]
    terms = image_terms(y, p)
    sums = [np.bincount(groups, weights=terms[name], minlength=g)[:, None] for name in ("nll", "brier")]
    bins = np.bincount(groups * ECE_BINS + terms["bin"].astype(np.int64), weights=terms["excess"],
                       minlength=g * ECE_BINS)  # fmt: skip
    return np.concatenate([*counts, *sums, bins.reshape(g, ECE_BINS)], axis=1).astype(np.float64)


def _figures_of_sums(sums: FloatArray, k: int) -> dict[str, FloatArray]:
    """Figures, (R,) each, of the added-up rows of `_sums_of_groups`, (R, …)."""
    hits, support, predicted = (sums[:, n * k : (n + 1) * k] for n in range(3))
    n = support.sum(axis=1)
    figures = macro_figures(hits, support, predicted)
    agreed, by_chance = n * hits.sum(axis=1), (support * predicted).sum(axis=1)
    spread = np.sqrt(n * n - (support**2).sum(axis=1)) * np.sqrt(n * n - (predicted**2).sum(axis=1))
    with np.errstate(invalid="ignore", divide="ignore"):
        figures["mcc"] = np.where(spread > 0, (agreed - by_chance) / spread, 0.0)
        figures["cohen_kappa"] = (agreed - by_chance) / (n * n - by_chance)
    figures["nll"], figures["brier"] = sums[:, 3 * k] / n, sums[:, 3 * k + 1] / n
    figures["ece"] = np.abs(sums[:, 3 * k + 2 :]).sum(axis=1) / n
    return figures
