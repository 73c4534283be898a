"""Thresholds that are frozen on one part and used on another."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgpanet.evaluation.operating import frozen_thresholds, operating_points


def sample(n: int, seed: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    rng = np.random.default_rng(seed)
    y = rng.integers(3, size=n)
    p = rng.dirichlet(np.ones(3), size=n) + np.eye(3)[y]
    p = np.round(p / p.sum(axis=1, keepdims=True), 3)  # with ties
    return y, p / p.sum(axis=1, keepdims=True), np.arange(n) // 2


@given(st.integers(3, 200), st.integers(0, 50), st.sampled_from([0.5, 0.9, 0.95]))
def test_a_threshold_is_the_least_that_keeps_the_specificity(n: int, seed: int, wanted: float) -> None:
    y, p, _ = sample(n, seed)
    for k, found in enumerate(frozen_thresholds(y, p, [wanted])):
        negatives = p[y != k, k]
        threshold = found[f"{wanted:g}"]
        if not len(negatives):
            assert threshold is None
            continue
        assert threshold in negatives
        assert (negatives <= threshold).mean() >= wanted - 1e-9
        lower = negatives[negatives < threshold]
        if len(lower):
            assert (negatives <= lower.max()).mean() < wanted


def test_sensitivity_and_specificity_are_counted_with_intervals_over_groups() -> None:
    y, p, groups = sample(120, 0)
    thresholds = frozen_thresholds(*sample(100, 1)[:2])
    rng = np.random.default_rng(3)
    drawn = [rng.integers(60, size=60) for _ in range(200)]
    rows = operating_points(y, p, groups, thresholds, ["a", "b", "c"], resamples=200, seed=3)
    assert [(row["class"], row["wanted_specificity"]) for row in rows][:3] == [("a", 0.9), ("a", 0.95), ("b", 0.9)]
    for row in rows:
        k = "abc".index(row["class"])
        called = p[:, k] > row["threshold"]
        assert row["sensitivity"] == pytest.approx(called[y == k].mean())
        assert row["specificity"] == pytest.approx((~called)[y != k].mean())
        values = []
        for draw in drawn:
            members = np.concatenate([np.flatnonzero(groups == g) for g in draw])
            values.append(called[members][y[members] == k].mean())
        assert row["sensitivity_interval"] == pytest.approx(np.quantile(values, [0.025, 0.975]).tolist())


def test_a_class_that_is_absent_has_no_sensitivity() -> None:
    y, p, groups = sample(60, 0)
    y = np.where(y == 2, 0, y)
    rows = operating_points(y, p, groups, [{"0.9": 0.5}, {"0.9": 0.5}, {"0.9": 0.5}], ["a", "b", "c"], 50)
    assert (rows[2]["sensitivity"], rows[2]["sensitivity_interval"]) == (None, None)
    assert rows[2]["specificity"] is not None


def test_without_negatives_there_is_no_threshold() -> None:
    p = np.full((4, 2), 0.5)
    assert frozen_thresholds([0, 0, 0, 0], p) == [{"0.9": None, "0.95": None}, {"0.9": 0.5, "0.95": 0.5}]
    rows = operating_points([0, 0, 1, 1], p, [1, 2, 3, 4], [{"0.9": None}, {"0.9": 0.5}], ["a", "b"], 20)
    assert rows[0] == {"class": "a", "wanted_specificity": 0.9, "threshold": None}
