"""Is one system better than another: fold by fold on the same test parts, or not at all."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bgpanet.errors import InvalidInput, Problem
from bgpanet.evaluation.bootstrap import resampled_figures
from bgpanet.evaluation.metrics import classification_metrics
from bgpanet.evaluation.predictions import PredictionTable
from bgpanet.evaluation.statistics import corrected_paired_t, holm

FIGURES = ("balanced_accuracy", "macro_f1", "accuracy", "auroc_macro")


@dataclass(frozen=True, eq=False)
class TestedFold:
    """What one system said of one test part: image ids, groups, labels (n,), probabilities (n, K), in any order of
    images; `n_train`: images that it learned from."""

    __test__ = False  # no test of pytest's

    image_ids: Sequence[str]
    groups: Sequence[str]
    y_true: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float64]
    n_train: int


@dataclass(frozen=True, eq=False)
class System:
    """A named system, the class names of its columns, and for each seed its folds, in the order of the division."""

    name: str
    classes: Sequence[str]
    runs: Sequence[Sequence[TestedFold]]


def read_fold(folder: Path) -> TestedFold:
    """The test part of a training, from its `report.json` and `predictions.parquet`. Raises OSError, InvalidInput."""
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    table = PredictionTable.read(folder / "predictions.parquet")
    images = report["split"]["images"]
    return TestedFold(
        image_ids=table.image_ids,
        groups=table.groups,
        y_true=table.truth_labels(),
        probabilities=table.probabilities.astype(np.float64),
        n_train=images["train"] + images["validation"],
    )


def compare(reference: System, others: Sequence[System]) -> list[dict[str, Any]]:
    """Each of `others` against `reference`, on each of balanced accuracy, macro F1, accuracy and macro AUROC.

    A row: system, figure, `mean` of the k folds (each the mean over seeds) and `reference_mean`, `difference` (other -
    reference) with its `interval`, 95 % by a bootstrap over groups of all out-of-fold predictions under the same draws,
    t and p of the corrected resampled t-test over folds (Nadeau & Bengio 2003), and `p_holm`, adjusted by Holm over all
    systems for that figure. t is None where it is infinite: the folds' differences are all the same (JSON has no word
    for it), and p then says no more than that.

    Raises:
        InvalidInput: the systems were not tested on the same images, fold by fold; with every reason.
    """
    problems = [problem for other in others for problem in _differing(reference, other)]
    if problems:
        raise InvalidInput(problems)
    rows = []
    scores = {system.name: fold_scores(system) for system in (reference, *others)}
    intervals = {other.name: _intervals(reference, other) for other in others}
    for figure in FIGURES:
        tests = [
            {**_test(reference, other, scores, figure), "interval": list(intervals[other.name][figure])}
            for other in others
        ]
        adjusted = holm([test["p"] for test in tests])
        rows += [{**test, "p_holm": p} for test, p in zip(tests, adjusted, strict=True)]
    return rows


def _test(reference: System, other: System, scores: dict[str, dict[str, list[float]]], figure: str) -> dict[str, Any]:
    a, b = scores[other.name][figure], scores[reference.name][figure]
    n_train = [fold.n_train for fold in reference.runs[0]]
    n_test = [len(fold.image_ids) for fold in reference.runs[0]]
    t, p = corrected_paired_t(a, b, n_train, n_test)
    return {
        "system": other.name,
        "figure": figure,
        "mean": float(np.mean(a)),
        "reference_mean": float(np.mean(b)),
        "difference": float(np.mean(a) - np.mean(b)),
        "t": t if math.isfinite(t) else None,
        "p": p,
    }


def _intervals(reference: System, other: System, resamples: int = 2000) -> dict[str, tuple[float, float]]:
    """Of the difference of two systems, each the mean over its seeds."""
    a, b = mean_draws(other, resamples), mean_draws(reference, resamples)
    ends = {name: np.nanquantile(a[name] - b[name], (0.025, 0.975)) for name in FIGURES}
    return {name: (float(low), float(high)) for name, (low, high) in ends.items()}


def mean_draws(system: System, resamples: int = 2000) -> dict[str, npt.NDArray[np.float64]]:
    """`resampled_figures` of all out-of-fold predictions, (resamples,), the mean over seeds under the same draws."""
    found = []
    for run in system.runs:
        order = [_order(fold) for fold in run]
        y = np.concatenate([fold.y_true[rows] for fold, rows in zip(run, order, strict=True)])
        p = np.concatenate([fold.probabilities[rows] for fold, rows in zip(run, order, strict=True)])
        groups = [fold.groups[n] for fold, rows in zip(run, order, strict=True) for n in rows]
        found.append(resampled_figures(y, p, groups, resamples))
    return {name: np.mean([figures[name] for figures in found], axis=0) for name in FIGURES}


def fold_scores(system: System) -> dict[str, list[float]]:
    """Of each fold the mean over seeds of its figures."""
    runs = [[classification_metrics(f.y_true, f.probabilities, system.classes) for f in run] for run in system.runs]
    return {
        figure: [float(np.mean([run[fold][figure] for run in runs])) for fold in range(len(runs[0]))]
        for figure in FIGURES
    }


def _order(fold: TestedFold) -> list[int]:
    return sorted(range(len(fold.image_ids)), key=lambda n: fold.image_ids[n])


def _differing(reference: System, other: System) -> list[Problem]:
    where = f"{other.name} and {reference.name}"
    if list(other.classes) != list(reference.classes):
        return [Problem(where, "know other classes, or the same in another order")]
    shapes = [[len(run) for run in system.runs] for system in (other, reference)]
    if shapes[0] != shapes[1]:
        return [Problem(where, f"have {shapes[0]} and {shapes[1]} folds in their seeds; compare over the same")]
    problems = []
    pairs = [pair for runs in zip(other.runs, reference.runs, strict=True) for pair in zip(*runs, strict=True)]
    for number, (mine, theirs) in enumerate(pairs):
        number %= len(reference.runs[0])
        labels = [dict(zip(fold.image_ids, fold.y_true.tolist(), strict=True)) for fold in (mine, theirs)]
        if labels[0].keys() != labels[1].keys():
            n = len(labels[0].keys() ^ labels[1].keys())
            problems.append(Problem(where, f"fold {number} was tested on other images ({n} differ)"))
        elif labels[0] != labels[1]:
            problems.append(Problem(where, f"fold {number} has other labels for the same images"))
        elif mine.n_train != theirs.n_train:
            problems.append(Problem(where, f"fold {number} learned from {mine.n_train} and {theirs.n_train} images"))
    return problems
