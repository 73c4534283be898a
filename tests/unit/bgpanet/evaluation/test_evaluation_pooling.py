"""A cross-validation's folds together."""

import dataclasses
import json
import statistics
from typing import Any

import numpy as np
import pytest

from bgpanet.errors import InvalidInput
from bgpanet.evaluation.bootstrap import grouped_intervals
from bgpanet.evaluation.metrics import classification_metrics
from bgpanet.evaluation.pooling import FOLD_FIGURES, FoldPredictions, pool_folds

CLASSES = ["bkl", "mel", "nv"]


def _fold(number: int, n: int = 40, **changes: Any) -> FoldPredictions:
    rng = np.random.default_rng(number)
    y, p = rng.permutation(np.arange(n) % 3), rng.dirichlet(np.ones(3), size=n)
    fold = FoldPredictions(
        fold=number,
        image_ids=[f"image {number}-{i}" for i in range(n)],
        groups=[f"lesion {number}-{i // 2}" for i in range(n)],
        y_true=y,
        probabilities=p,
        figures=classification_metrics(y, p, CLASSES),
    )
    return dataclasses.replace(fold, **changes)


FOLDS = [_fold(0), _fold(1, n=50), _fold(2, n=31)]


def test_mean_and_deviation_are_those_of_the_folds_figures() -> None:
    pooled = pool_folds(FOLDS, CLASSES)
    assert pooled["folds"] == 3
    assert set(pooled["mean"]) == set(FOLD_FIGURES)
    for name in FOLD_FIGURES:
        values = [fold.figures[name] for fold in FOLDS]
        assert all(value is not None for value in values)
        expected = {"mean": statistics.mean(values), "sd": statistics.stdev(values)}  # type: ignore[type-var]
        assert pooled["mean"][name] == pytest.approx(expected)


def test_pooled_figures_and_intervals_are_those_of_all_test_images_together() -> None:
    pooled = pool_folds(FOLDS, CLASSES)
    y = np.concatenate([np.asarray(fold.y_true) for fold in FOLDS])
    p = np.concatenate([np.asarray(fold.probabilities) for fold in FOLDS])
    groups = np.concatenate([np.asarray(fold.groups) for fold in FOLDS])
    assert pooled["pooled"] == classification_metrics(y, p, CLASSES)
    assert pooled["pooled"]["n"] == 121
    intervals = {name: list(ends) for name, ends in grouped_intervals(y, p, groups).items()}
    assert pooled["intervals"] == {name: ends for name, ends in intervals.items() if "/" not in name}
    assert pooled["class_intervals"][CLASSES[1]]["auroc"] == intervals["auroc/1"]


def test_the_order_of_folds_does_not_matter() -> None:
    assert pool_folds(FOLDS[::-1], CLASSES) == pool_folds(FOLDS, CLASSES)


def test_a_single_fold_has_no_deviation() -> None:
    figures = pool_folds(FOLDS[:1], CLASSES)["mean"]
    assert figures["accuracy"] == {"mean": FOLDS[0].figures["accuracy"], "sd": None}


def test_a_figure_that_one_fold_lacks_is_not_averaged_over_the_others() -> None:
    without = _fold(3, figures={**FOLDS[0].figures, "auroc_macro": None})
    mean = pool_folds([*FOLDS, without], CLASSES)["mean"]
    assert mean["auroc_macro"] == {"mean": None, "sd": None}
    assert mean["accuracy"]["sd"] is not None


def test_a_split_by_group_leaks_nothing() -> None:
    assert pool_folds(FOLDS, CLASSES)["leakage"] == {"groups": 0, "images": 0, "share": 0.0}


def test_groups_in_several_test_parts_are_told_with_all_their_images() -> None:
    """Lesion a: 2 images in fold 0 and 1 in fold 1; lesion b: one in each of three folds; c: twice in one fold."""
    first = _fold(0, 10, groups=["a", "a", "b", "c", "c", *"uvwxy"])
    second = _fold(1, 6, groups=["a", "b", *"mnop"])
    third = _fold(2, 4, groups=["b", *"qrs"])
    leakage = pool_folds([first, second, third], CLASSES)["leakage"]
    assert leakage == {"groups": 2, "images": 6, "share": 0.3}


def test_the_result_is_plain_json() -> None:
    pooled = pool_folds(FOLDS, CLASSES)
    assert json.loads(json.dumps(pooled, allow_nan=False)) == pooled


def test_an_image_tested_twice_is_refused_whether_in_one_part_or_two() -> None:
    twice_in_one = _fold(0, 6, image_ids=["a", "a", "b", "c", "d", "e"])
    again = _fold(1, 6, image_ids=["b", "f", "g", "h", "i", "j"])
    with pytest.raises(InvalidInput) as refusal:
        pool_folds([twice_in_one, again], CLASSES)
    assert ["'a'" in str(p) or "'b'" in str(p) for p in refusal.value.problems] == [True, True]


def test_every_problem_of_every_fold_is_told() -> None:
    short = _fold(0, groups=["a"])
    unlike = _fold(1, probabilities=np.full((40, 2), 0.5), image_ids=[f"x{i}" for i in range(40)])
    incomplete = _fold(1, figures={name: float("nan") for name in FOLD_FIGURES[1:]})
    with pytest.raises(InvalidInput) as refusal:
        pool_folds([short, unlike, incomplete], CLASSES)
    told = str(refusal.value)
    for part in (
        "folds[0].groups: has 1 entries for 40 images",
        "folds[1]: is given 2 times",
        "folds[1].classes: names 3 classes for 2 columns",
        "folds[1].y_true[",
        "folds[1].figures.accuracy: is missing",
        "folds[1].figures.ece: must be finite",
    ):
        assert part in told


def test_no_folds_are_refused() -> None:
    with pytest.raises(InvalidInput, match="pool at least one"):
        pool_folds([], CLASSES)
