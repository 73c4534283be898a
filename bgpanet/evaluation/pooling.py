"""A cross-validation as a whole: the folds' figures side by side, and all out-of-fold predictions together."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bgpanet.errors import InvalidInput, Problem
from bgpanet.evaluation.bootstrap import grouped_intervals
from bgpanet.evaluation.metrics import checked, classification_metrics
from bgpanet.evaluation.summary import divided

FOLD_FIGURES = (
    "accuracy",
    "balanced_accuracy",
    "macro_f1",
    "macro_precision",
    "macro_recall",
    "mcc",
    "cohen_kappa",
    "auroc_macro",
    "nll",
    "ece",
)


@dataclass(frozen=True, eq=False)
class FoldPredictions:
    """What the net of one fold said about that fold's test part, n images.

    groups: the lesion or patient of each image. y_true: (n,) class indices. probabilities: (n, K).
    figures: at least `FOLD_FIGURES`, as `classification_metrics` gives them; None where undefined.
    """

    fold: int
    image_ids: Sequence[str]
    groups: Sequence[str]
    y_true: npt.ArrayLike
    probabilities: npt.ArrayLike
    figures: Mapping[str, float | None]


def pool_folds(folds: Sequence[FoldPredictions], classes: Sequence[str]) -> dict[str, Any]:
    """The result of a cross-validation, as plain JSON values; the order in which folds are given does not matter.

    folds: their number, k.
    mean: for each of `FOLD_FIGURES` the mean over folds and the standard deviation between them (ddof 1; None for a
        single fold); both None where any fold's figure is undefined, since a mean over fewer folds would mislead.
    pooled: `classification_metrics` of the union of the test parts, each image predicted by the net that did not
        learn from it. Ranking figures there compare scores of different nets; the mean over folds does not.
    intervals, class_intervals: `grouped_intervals` of the pooled figures, [low, high] at 95 %.
    leakage: groups that stand in more than one test part; images of such groups, each tested by a net that was given
        other images of its group; share of all images. All 0 where the split is by group.

    Raises:
        InvalidInput: no folds, a fold given twice, an image in two test parts or twice in one, columns of unequal
            length, figures missing, or what `classification_metrics` refuses; all problems together.
    """
    folds = sorted(folds, key=lambda fold: fold.fold)
    problems = _problems(folds, classes)
    if problems:
        raise InvalidInput(problems)
    y_true = np.concatenate([np.asarray(fold.y_true) for fold in folds])
    probabilities = np.concatenate([np.asarray(fold.probabilities, dtype=np.float64) for fold in folds])
    groups = [group for fold in folds for group in fold.groups]
    intervals = grouped_intervals(y_true, probabilities, groups)
    return {
        "folds": len(folds),
        "mean": {name: _mean_and_sd([fold.figures[name] for fold in folds]) for name in FOLD_FIGURES},
        "pooled": classification_metrics(y_true, probabilities, classes),
        **divided(intervals, classes),
        "leakage": _leakage(folds),
    }


def _mean_and_sd(values: Sequence[float | None]) -> dict[str, float | None]:
    defined = [value for value in values if value is not None]
    if len(defined) < len(values):
        return {"mean": None, "sd": None}
    return {"mean": float(np.mean(defined)), "sd": float(np.std(defined, ddof=1)) if len(defined) > 1 else None}


def _leakage(folds: Sequence[FoldPredictions]) -> dict[str, float]:
    folds_of_group: dict[str, set[int]] = defaultdict(set)
    for fold in folds:
        for group in fold.groups:
            folds_of_group[group].add(fold.fold)
    torn = {group for group, where in folds_of_group.items() if len(where) > 1}
    images = sum(group in torn for fold in folds for group in fold.groups)
    return {"groups": len(torn), "images": images, "share": images / sum(len(fold.groups) for fold in folds)}


def _problems(folds: Sequence[FoldPredictions], classes: Sequence[str]) -> list[Problem]:
    if not folds:
        return [Problem("folds", "there are none; pool at least one")]
    problems = [
        Problem(f"folds[{number}]", f"is given {times} times; give each fold once")
        for number, times in Counter(fold.fold for fold in folds).items()
        if times > 1
    ]
    counts = Counter(image for fold in folds for image in fold.image_ids)
    problems += [
        Problem("image_ids", f"image {image!r} is tested {times} times; the test parts must not overlap")
        for image, times in counts.items()
        if times > 1
    ]
    return problems + [problem for fold in folds for problem in _problems_of(fold, classes)]


def _problems_of(fold: FoldPredictions, classes: Sequence[str]) -> list[Problem]:
    where = f"folds[{fold.fold}]"
    problems = []
    try:
        checked(fold.y_true, fold.probabilities, classes)
    except InvalidInput as error:
        problems += [Problem(f"{where}.{problem.where}", problem.what) for problem in error.problems]
    n = len(np.asarray(fold.probabilities))
    for name, values in {"image_ids": fold.image_ids, "groups": fold.groups}.items():
        if len(values) != n:
            problems.append(Problem(f"{where}.{name}", f"has {len(values)} entries for {n} images"))
    for name in FOLD_FIGURES:
        if name not in fold.figures:
            problems.append(Problem(f"{where}.figures.{name}", "is missing"))
        elif (value := fold.figures[name]) is not None and not np.isfinite(value):
            problems.append(Problem(f"{where}.figures.{name}", f"must be finite, or None if undefined; got {value}"))
    return problems
