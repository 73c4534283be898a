"""Tests and intervals equal scipy's or a hand-worked example."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, t, ttest_rel

from bgpanet.errors import InvalidInput
from bgpanet.evaluation.statistics import corrected_paired_t, holm, wilson_interval

A = [0.71, 0.74, 0.69, 0.75, 0.72]
B = [0.70, 0.71, 0.70, 0.71, 0.70]

probabilities = st.lists(st.floats(0, 1), max_size=12)


def test_at_five_folds_the_naive_t_shrinks_by_exactly_one_and_a_half() -> None:
    naive = ttest_rel(A, B).statistic
    result = corrected_paired_t(A, B, n_train=8000, n_test=2000)
    assert result.t == pytest.approx(naive / 1.5, rel=1e-12)
    assert result.p == pytest.approx(2 * t.sf(naive / 1.5, df=4), rel=1e-12)


def test_without_the_correction_term_it_is_the_paired_t_test() -> None:
    expected = ttest_rel(A, B)
    assert corrected_paired_t(A, B, n_train=10**15, n_test=1) == pytest.approx((expected.statistic, expected.pvalue))


def test_the_variance_is_that_of_nadeau_and_bengio() -> None:
    d = [a - b for a, b in zip(A[:3], B[:3], strict=True)]
    mean = sum(d) / 3
    variance = sum((x - mean) ** 2 for x in d) / 2
    expected = mean / math.sqrt((1 / 3 + 1 / 9) * variance)
    assert corrected_paired_t(A[:3], B[:3], n_train=900, n_test=100).t == pytest.approx(expected)


def test_swapping_the_systems_turns_the_sign_and_keeps_p() -> None:
    there, back = corrected_paired_t(A, B, 4, 1), corrected_paired_t(B, A, 4, 1)
    assert (back.t, back.p) == (-there.t, there.p)
    assert there.t > 0


def test_sizes_a_fold_enter_as_the_mean_of_their_ratios() -> None:
    """Ratios 1/4, 1/4, 1/4, 1/8, 3/8: mean 1/4."""
    each = corrected_paired_t(A, B, n_train=[80, 80, 80, 80, 80], n_test=[20, 20, 20, 10, 30])
    assert each == pytest.approx(corrected_paired_t(A, B, n_train=80, n_test=20))


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (A, A, (0.0, 1.0)),
        ([0.9, 0.8, 0.7], [0.8, 0.7, 0.6], (math.inf, 0.0)),
        ([0.8, 0.7, 0.6], [0.9, 0.8, 0.7], (-math.inf, 0.0)),
        ([0.0, 0.0], [0.0, 0.0], (0.0, 1.0)),
        ([0.1 + 0.2, 0.1 + 0.2], [0.3, 0.3], (0.0, 1.0)),
    ],
)
def test_differences_that_do_not_vary_give_no_difference_or_a_certain_one(
    a: list[float], b: list[float], expected: tuple[float, float]
) -> None:
    assert corrected_paired_t(a, b, 4, 1) == expected


def test_a_variance_of_one_image_in_ten_thousand_is_not_taken_for_rounding() -> None:
    result = corrected_paired_t([0.5, 0.5, 0.5001], [0.5, 0.5, 0.5], 4, 1)
    assert 0 < result.t < 1


@given(probabilities)
def test_holm_is_the_definition_read_aloud(p: list[float]) -> None:
    ranked = sorted(p)
    steps = [min(1.0, (len(p) - j) * value) for j, value in enumerate(ranked)]
    expected = [max(steps[: ranked.index(value) + p.count(value)]) for value in p]
    assert holm(p) == pytest.approx(expected)


@given(probabilities)
def test_holm_keeps_order_never_helps_and_is_no_harsher_than_bonferroni(p: list[float]) -> None:
    adjusted = holm(p)
    for value, raised in zip(p, adjusted, strict=True):
        assert value <= raised <= min(1.0, len(p) * value)
    by_p = [raised for _, raised in sorted(zip(p, adjusted, strict=True))]
    assert by_p == sorted(by_p)


def test_holm_of_a_hand_worked_example() -> None:
    """Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1 is 0.02, 0.03, 0.06, 0.04; the last is raised to 0.06."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.999])
@pytest.mark.parametrize(("successes", "n"), [(0, 1), (1, 1), (0, 50), (50, 50), (3, 17), (584, 33_126), (1, 10**9)])
def test_wilson_equals_scipys(successes: int, n: int, confidence: float) -> None:
    expected = binomtest(successes, n).proportion_ci(confidence, method="wilson")
    assert wilson_interval(successes, n, confidence) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_ends_exactly_at_nothing_and_at_all() -> None:
    for n in range(1, 200):
        assert wilson_interval(0, n)[0] == 0.0
        assert wilson_interval(n, n)[1] == 1.0


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: corrected_paired_t([1], [1], 4, 1), ["at least 2 folds"]),
        (lambda: corrected_paired_t([1, 2], [1], 4, 1), ["one score for each"]),
        (lambda: corrected_paired_t([1, np.nan], [1, np.inf], 4, 0), ["scores_a", "scores_b", "n_test"]),
        (lambda: corrected_paired_t([1, 2, 3], [1, 2, 4], [4, 4], 1), ["n_train"]),
        (lambda: holm([0.1, 1.1]), ["between 0 and 1"]),
        (lambda: holm([math.nan]), ["between 0 and 1"]),
        (lambda: wilson_interval(0, 0), ["successes"]),
        (lambda: wilson_interval(3, 2, 1.0), ["successes", "confidence"]),
    ],
)
def test_nonsense_is_refused(call: Callable[[], Any], told: list[str]) -> None:
    with pytest.raises(InvalidInput) as refusal:
        call()
    assert len(refusal.value.problems) == len(told)
    for part in told:
        assert part in str(refusal.value)
