"""Figures of a classifier on one set of images: n images, K classes.

Everything equals scikit-learn where scikit-learn has it; tests hold it so. What a mean over classes runs over is
stated once, at `macro_figures`, and holds for the bootstrap too.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bgpanet.errors import InvalidInput, Problem
from bgpanet.evaluation.statistics import wilson_interval

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Counts = IntArray | FloatArray

ROW_SUM_TOLERANCE = 1e-3
ECE_BINS = 15


def classification_metrics(
    y_true: npt.ArrayLike, probabilities: npt.ArrayLike, classes: Sequence[str] | None = None
) -> dict[str, Any]:
    """Figures of (n, K) class probabilities against (n,) class indices, as plain JSON values.

    An image is predicted to be of its most probable class, the first among equals. None stands where a figure is
    undefined. `classes` names the K columns; without it they are called "0", "1", ….

    n: images. accuracy: share predicted right.
    balanced_accuracy (BMC), macro_recall, macro_precision, macro_f1: see `macro_figures`.
    mcc: Matthews correlation for K classes (Gorodkin 2004); 0 where truth or prediction is constant.
    cohen_kappa: agreement beyond chance, unweighted; None where both are constant and equal.
    auroc_macro, auprc_macro: unweighted means of the per-class figures that are defined.
    nll: mean of -ln p(true class), natural logarithm, with p not below 2.2e-16, so that it stays finite.
    brier: mean over images of the sum over classes of (p - [class is true])²; from 0 to 2.
    ece: expected calibration error (Guo et al. 2017): the top probability cut into 15 bins of equal width, open
        below and closed above; the mean over images of |accuracy - mean top probability| of their bin.
    per_class: for each class, against all others: support (images of it), precision (None if never predicted),
        recall (None if absent) and its Wilson 95 % interval [low, high], f1 = 2·hits / (support + predicted) (None if
        0/0), auroc (share of pairs of one image of the class and one of another that p puts in order, a tie counting
        half; None if the class or its rest is absent), auprc (average precision: mean over the images of the class of
        the precision at their own p as threshold; None if absent).
    confusion_matrix: (K, K) counts, rows truth, columns prediction.
    constant_predictor: what always answering the most frequent class of `y_true` would score.

    Predicted classes and rankings use the probabilities as given; nll, brier and ece rows divided by their sum.

    Raises:
        InvalidInput: shapes that do not fit, labels outside 0…K-1, probabilities that are not finite, negative, or
            whose rows do not sum to 1 within 1e-3; all problems together.
    """
    y, p = checked(y_true, probabilities, classes)
    names = [str(name) for name in (range(p.shape[1]) if classes is None else classes)]
    confusion = confusion_matrix(y, p.argmax(axis=1), len(names))
    per_class = [_class_figures(name, k, y, p, confusion) for k, name in enumerate(names)]
    macro = macro_figures(*tallies(confusion))
    return {
        "n": len(y),
        **{name: float(value) for name, value in macro.items()},
        "macro_recall": float(macro["balanced_accuracy"]),
        "mcc": _mcc(confusion),
        "cohen_kappa": _cohen_kappa(confusion),
        "auroc_macro": _mean_of_defined([row["auroc"] for row in per_class]),
        "auprc_macro": _mean_of_defined([row["auprc"] for row in per_class]),
        **_probability_figures(y, p),
        "per_class": per_class,
        "confusion_matrix": confusion.tolist(),
        "constant_predictor": _constant_predictor(names, confusion),
    }


def checked(
    y_true: npt.ArrayLike, probabilities: npt.ArrayLike, classes: Sequence[str] | None = None
) -> tuple[IntArray, FloatArray]:
    """The labels, (n,), and the probabilities, (n, K), once they are known to make sense; values unchanged.

    Raises:
        InvalidInput: as `classification_metrics`.
    """
    y, p = np.asarray(y_true), np.asarray(probabilities)
    if p.ndim != 2 or p.shape[1] < 2 or p.dtype.kind not in "fiu":
        raise InvalidInput.one(
            "probabilities", f"must be numbers of shape (images, classes), at least 2 classes; got {p.dtype} {p.shape}"
        )
    if len(p) == 0:
        raise InvalidInput.one("probabilities", "there are no images; figures need at least one")
    p = p.astype(np.float64)
    problems = [*_label_problems(y, p), *_probability_problems(p), *_class_problems(classes, p.shape[1])]
    if problems:
        raise InvalidInput(problems)
    return y.astype(np.int64), p


def confusion_matrix(y_true: IntArray, predicted: IntArray, k: int) -> IntArray:
    """(k, k) counts, rows truth, columns prediction."""
    return np.bincount(y_true * k + predicted, minlength=k * k).reshape(k, k)


def tallies(confusion: IntArray) -> tuple[IntArray, IntArray, IntArray]:
    """Of each class, (K,): images of it that were predicted right, images of it, images predicted to be of it."""
    return confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)


def macro_figures(hits: Counts, support: Counts, predicted: Counts) -> dict[str, FloatArray]:
    """accuracy, balanced_accuracy, macro_precision and macro_f1, (…), from the `tallies` of classes, (…, K).

    The means over classes run over the classes with support, as scikit-learn's `balanced_accuracy_score` does and
    its other scores do with `labels` set to the classes that occur in the truth. A class with support that is never
    predicted has precision 0 (`zero_division=0`). balanced_accuracy is the macro recall.
    """
    present = (support > 0).sum(axis=-1)
    # A class without support has no hits and so adds nothing to any of these sums.
    return {
        "accuracy": hits.sum(axis=-1) / support.sum(axis=-1),
        "balanced_accuracy": _share(hits, support).sum(axis=-1) / present,
        "macro_f1": _share(2 * hits, support + predicted).sum(axis=-1) / present,
        "macro_precision": _share(hits, predicted).sum(axis=-1) / present,
    }


def _share(part: Counts, whole: Counts) -> FloatArray:
    """part / whole, 0 where there is nothing to share."""
    shares: FloatArray = part / np.maximum(whole, 1)
    return shares


def _class_figures(name: str, k: int, y: IntArray, p: FloatArray, confusion: IntArray) -> dict[str, Any]:
    hits, support, predicted = (int(tally[k]) for tally in tallies(confusion))
    scores, others = np.sort(p[y == k, k]), np.sort(p[y != k, k])
    return {
        "class": name,
        "support": support,
        "precision": hits / predicted if predicted else None,
        "recall": hits / support if support else None,
        "recall_interval": list(wilson_interval(hits, support)) if support else None,
        "f1": 2 * hits / (support + predicted) if support + predicted else None,
        "auroc": _auroc(scores, others) if support and len(others) else None,
        "auprc": _average_precision(scores, others) if support else None,
    }


def _auroc(scores: FloatArray, others: FloatArray) -> float:
    """Mann-Whitney's U over the number of pairs; both sorted."""
    below = np.searchsorted(others, scores, side="left")
    not_above = np.searchsorted(others, scores, side="right")
    return float((below + not_above).sum() / (2 * len(scores) * len(others)))


def _average_precision(scores: FloatArray, others: FloatArray) -> float:
    """Both sorted."""
    hits = len(scores) - np.searchsorted(scores, scores, side="left")
    false_alarms = len(others) - np.searchsorted(others, scores, side="left")
    return float((hits / (hits + false_alarms)).mean())


def rank_figures(y: IntArray, p: FloatArray, weights: FloatArray) -> dict[str, FloatArray]:
    """auroc_macro, auprc_macro, `auroc/<k>` and `auprc/<k>`, (R,) each, of images that count `weights` (R, n) times.

    Definitions are those of `classification_metrics`; NaN where a figure is undefined.
    """
    found: dict[str, FloatArray] = {}
    for k in range(p.shape[1]):
        order = np.argsort(p[:, k], kind="stable")
        scores, positive = p[order, k], y[order] == k
        last = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)  # of each run of equal scores
        upto = [np.cumsum(weights[:, order] * part, axis=1)[:, last] for part in (positive, ~positive)]
        hits, others = (np.diff(sums, axis=1, prepend=0.0) for sums in upto)
        all_hits, all_others = upto[0][:, -1:], upto[1][:, -1:]
        with np.errstate(invalid="ignore", divide="ignore"):
            pairs = (hits * (upto[1] - others / 2)).sum(axis=1)
            found[f"auroc/{k}"] = pairs / (all_hits * all_others)[:, 0]
            above, false_alarms = all_hits - upto[0] + hits, all_others - upto[1] + others
            precision = np.nan_to_num(above / (above + false_alarms))
            found[f"auprc/{k}"] = (hits * precision).sum(axis=1) / all_hits[:, 0]
    for name in ("auroc", "auprc"):
        values = np.stack([found[f"{name}/{k}"] for k in range(p.shape[1])])
        defined = np.isfinite(values)
        with np.errstate(invalid="ignore"):
            found[f"{name}_macro"] = np.where(defined, values, 0.0).sum(axis=0) / defined.sum(axis=0)
    return found


def _mean_of_defined(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return math.fsum(defined) / len(defined) if defined else None


def _mcc(confusion: IntArray) -> float:
    hits, support, predicted = tallies(confusion)
    n = int(support.sum())
    # In whole numbers, so that a constant truth or prediction gives exactly 0.
    truth_spread, prediction_spread = n * n - int(support @ support), n * n - int(predicted @ predicted)
    if not truth_spread or not prediction_spread:
        return 0.0
    together = n * int(hits.sum()) - int(support @ predicted)
    return together / (math.sqrt(truth_spread) * math.sqrt(prediction_spread))


def _cohen_kappa(confusion: IntArray) -> float | None:
    hits, support, predicted = tallies(confusion)
    n = int(support.sum())
    by_chance = int(support @ predicted)
    return (n * int(hits.sum()) - by_chance) / (n * n - by_chance) if by_chance < n * n else None


def image_terms(y: IntArray, p: FloatArray) -> dict[str, FloatArray]:
    """What each image, (n,), adds to nll and brier; and to ece: its `bin`, and by how much [right] exceeds its top
    probability."""
    right = p.argmax(axis=1) == y
    p = p / p.sum(axis=1, keepdims=True)
    of_truth = p[np.arange(len(y)), y]
    inner_edges = np.linspace(0, 1, ECE_BINS + 1)[1:-1]
    top = p.max(axis=1)
    return {
        "nll": -np.log(np.maximum(of_truth, np.finfo(np.float64).eps)),
        "brier": ((p - np.eye(p.shape[1])[y]) ** 2).sum(axis=1),
        "bin": np.digitize(top, inner_edges, right=True).astype(np.float64),
        "excess": right - top,
    }


def _probability_figures(y: IntArray, p: FloatArray) -> dict[str, float]:
    terms = image_terms(y, p)
    # A bin's share of the images times |accuracy - confidence| is |right answers - summed confidence| / n.
    excess = np.bincount(terms["bin"].astype(np.int64), weights=terms["excess"])
    return {
        "nll": float(terms["nll"].mean()),
        "brier": float(terms["brier"].mean()),
        "ece": float(np.abs(excess).sum() / len(y)),
    }


def _constant_predictor(names: Sequence[str], confusion: IntArray) -> dict[str, Any]:
    support = confusion.sum(axis=1)
    return {
        "class": names[support.argmax()],
        "accuracy": float(support.max() / support.sum()),
        "balanced_accuracy": float(1 / np.count_nonzero(support)),
    }


def _label_problems(y: npt.NDArray[Any], p: FloatArray) -> list[Problem]:
    if y.ndim != 1 or y.dtype.kind not in "iu":
        return [Problem("y_true", f"must be whole class indices of shape (images,); got {y.dtype} {y.shape}")]
    problems = []
    if len(y) != len(p):
        problems.append(Problem("y_true", f"has {len(y)} labels for {len(p)} rows of probabilities"))
    outside = np.flatnonzero((y < 0) | (y >= p.shape[1]))
    if outside.size:
        first = outside[0]
        what = f"label {y[first]} is outside 0…{p.shape[1] - 1}, in {outside.size} rows in all"
        problems.append(Problem(f"y_true[{first}]", what))
    return problems


def _probability_problems(p: FloatArray) -> list[Problem]:
    finite = np.isfinite(np.abs(p).max(axis=1))
    negative = p.min(axis=1) < 0
    sums = np.where(finite[:, None], p, 0).sum(axis=1)
    faults = [
        (~finite, "must be finite"),
        (negative, "must not be negative"),
        (finite & ~negative & (np.abs(sums - 1) > ROW_SUM_TOLERANCE), f"must sum to 1 within {ROW_SUM_TOLERANCE}"),
    ]
    found = [(np.flatnonzero(rows), what) for rows, what in faults]
    return [
        Problem(f"probabilities[{rows[0]}]", f"{what}; wrong in {rows.size} rows in all")
        for rows, what in found
        if rows.size
    ]


def _class_problems(classes: Sequence[str] | None, k: int) -> list[Problem]:
    if classes is None:
        return []
    problems = []
    if len(classes) != k:
        problems.append(Problem("classes", f"names {len(classes)} classes for {k} columns of probabilities"))
    if len(set(classes)) != len(classes):
        problems.append(Problem("classes", "names a class twice"))
    return problems
