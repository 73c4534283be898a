"""Intervals by resampling whole groups."""

import warnings
from collections import defaultdict
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import sklearn.metrics as reference

from bgpanet.errors import InvalidInput
from bgpanet.evaluation import bootstrap
from bgpanet.evaluation.bootstrap import grouped_intervals
from bgpanet.evaluation.metrics import classification_metrics

Sample = tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], npt.NDArray[np.int64]]


def _sample(groups: int, k: int, seed: int) -> Sample:
    """Groups of 1 to 4 images, each group of one class, two thirds predicted right."""
    rng = np.random.default_rng(seed)
    group = np.arange(groups).repeat(rng.integers(1, 5, size=groups))
    y = rng.integers(k, size=groups)[group]
    predicted = np.where(rng.random(len(y)) < 2 / 3, y, rng.integers(k, size=len(y)))
    return y, np.eye(k)[predicted], group


def _soft(sample: Sample) -> Sample:
    """The same with probabilities that have ties."""
    y, p, groups = sample
    noise = np.random.default_rng(9).dirichlet(np.ones(p.shape[1]), size=len(y))
    soft = np.round(0.5 * p + 0.5 * noise, 1) + 0.01
    return y, soft / soft.sum(axis=1, keepdims=True), groups


def _plain_loop(y: Any, p: Any, groups: Any, resamples: int, confidence: float, seed: int) -> dict[str, Any]:
    rng, names = np.random.default_rng(seed), np.unique(groups)
    values: dict[str, list[float]] = defaultdict(list)
    for _ in range(resamples):
        drawn = rng.integers(len(names), size=len(names))
        rows = np.concatenate([np.flatnonzero(groups == names[g]) for g in drawn])
        truth, said = y[rows], p[rows].argmax(axis=1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scikit-learn warns where a resample misses a class
            values["accuracy"].append(reference.accuracy_score(truth, said))
            values["balanced_accuracy"].append(reference.balanced_accuracy_score(truth, said))
            values["macro_f1"].append(reference.f1_score(truth, said, labels=np.unique(truth), average="macro"))
        figures = classification_metrics(truth, p[rows])
        for name in ("macro_precision", "mcc", "cohen_kappa", "nll", "brier", "ece", "auroc_macro", "auprc_macro"):
            values[name].append(np.nan if figures[name] is None else figures[name])
        for k, row in enumerate(figures["per_class"]):
            for name in ("auroc", "auprc"):
                values[f"{name}/{k}"].append(np.nan if row[name] is None else row[name])
    ends = [(1 - confidence) / 2, (1 + confidence) / 2]
    return {
        name: pytest.approx(tuple(np.nanquantile(v, ends)), abs=1e-9)
        for name, v in values.items()
        if np.isfinite(v).any()
    }


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize(("groups", "k"), [(60, 7), (40, 2), (6, 5)])
def test_intervals_equal_those_of_a_plain_loop_over_the_same_draws(groups: int, k: int, soft: bool) -> None:
    """With 6 groups of 5 classes most resamples miss a class."""
    sample = _sample(groups, k, seed=k)
    sample = _soft(sample) if soft else sample
    assert grouped_intervals(*sample, 150, 0.9, seed=3) == _plain_loop(*sample, 150, 0.9, seed=3)


def test_the_size_of_a_chunk_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    sample = _sample(50, 3, seed=1)
    whole = grouped_intervals(*sample, 100)
    monkeypatch.setattr(bootstrap, "_CHUNK", 350)
    assert grouped_intervals(*sample, 100) == whole


def test_the_seed_decides_the_interval() -> None:
    sample = _sample(50, 3, seed=1)
    assert grouped_intervals(*sample, 200, seed=5) == grouped_intervals(*sample, 200, seed=5)
    assert grouped_intervals(*sample, 200, seed=5) != grouped_intervals(*sample, 200, seed=6)


def test_group_names_and_the_order_of_images_change_nothing_but_the_draw_order() -> None:
    y, p, groups = _sample(50, 3, seed=1)
    shuffle = np.random.default_rng(0).permutation(len(y))
    named = [f"lesion {g:03}" for g in groups[shuffle]]
    assert grouped_intervals(y[shuffle], p[shuffle], named, 200) == grouped_intervals(y, p, groups, 200)


def test_copies_of_an_image_narrow_the_interval_only_if_they_pass_for_independent() -> None:
    y, p, _ = _sample(120, 2, seed=4)
    lesions = np.arange(len(y))
    once = grouped_intervals(y, p, lesions)
    copies_y, copies_p = y.repeat(9), p.repeat(9, axis=0)
    of_their_lesion = grouped_intervals(copies_y, copies_p, lesions.repeat(9))
    as_if_independent = grouped_intervals(copies_y, copies_p, np.arange(9 * len(y)))
    for name, (low, high) in as_if_independent.items():
        assert of_their_lesion[name] == pytest.approx(once[name])
        assert high - low == pytest.approx((once[name][1] - once[name][0]) / 3, rel=0.15)


def test_a_ninety_five_percent_interval_covers_the_truth_about_so_often() -> None:
    """Lesions of 3 images whose predictions agree; 200 data sets of 60 lesions, true accuracy 0.7.

    Binomial noise of 200 trials is ±3 % at two deviations; drawing images instead would cover some 72 %.
    """
    rng = np.random.default_rng(11)
    groups = np.arange(60).repeat(3)
    covered = 0
    for trial in range(200):
        y = rng.integers(2, size=60)[groups]
        right = (rng.random(60) < 0.7)[groups]
        low, high = grouped_intervals(y, np.eye(2)[np.where(right, y, 1 - y)], groups, 200, seed=trial)["accuracy"]
        covered += low <= 0.7 <= high
    assert 0.89 <= covered / 200 <= 0.99


def test_the_interval_holds_the_figure_itself() -> None:
    y, p, groups = _sample(300, 7, seed=2)
    figures = classification_metrics(y, p)
    for name, (low, high) in grouped_intervals(y, p, groups).items():
        kind, _, k = name.partition("/")
        value = figures["per_class"][int(k)][kind] if k else figures[name]
        assert low < value < high or name == "ece", name  # the error of calibration is biased upwards in draws


@pytest.mark.parametrize(
    ("groups", "options", "told"),
    [
        ([1, 2, 3], {}, ["one group for each of 4 images"]),
        ([1, 1, 1, 1], {}, ["at least 2 of them"]),
        ([1, 2, 3, 4], {"resamples": 0, "confidence": 95}, ["resamples", "confidence"]),
    ],
)
def test_nonsense_is_refused(groups: list[int], options: dict[str, Any], told: list[str]) -> None:
    with pytest.raises(InvalidInput) as refusal:
        grouped_intervals([0, 1, 0, 1], np.eye(2)[[0, 1, 1, 1]], groups, **options)
    assert len(refusal.value.problems) == len(told)
    for part in told:
        assert part in str(refusal.value)
