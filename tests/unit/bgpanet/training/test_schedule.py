import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgpanet.training.schedule import learning_rate

PEAK, LOW = 1e-4, 1e-6


def test_the_warm_up_is_linear_and_ends_at_the_peak() -> None:
    rates = [learning_rate(step, 100, 10, PEAK, LOW) for step in range(10)]
    assert rates == pytest.approx([PEAK * n / 10 for n in range(1, 11)], rel=1e-12)


def test_after_the_warm_up_it_is_half_a_cosine_of_the_remaining_steps() -> None:
    for step in range(10, 100):
        angle = math.pi * (step - 9) / 90
        assert learning_rate(step, 100, 10, PEAK, LOW) == pytest.approx(LOW + (PEAK - LOW) * (1 + math.cos(angle)) / 2)


@given(st.integers(1, 10_000), st.data())
def test_the_last_step_has_exactly_the_minimum(total: int, data: st.DataObject) -> None:
    warmup = data.draw(st.integers(0, total - 1))
    assert learning_rate(total - 1, total, warmup, PEAK, LOW) == LOW


@given(st.integers(2, 1000), st.data())
def test_it_never_leaves_its_bounds_and_never_rises_after_the_warm_up(total: int, data: st.DataObject) -> None:
    warmup = data.draw(st.integers(0, total - 1))
    rates = [learning_rate(step, total, warmup, PEAK, LOW) for step in range(total)]
    assert all(0 < rate <= PEAK for rate in rates)
    assert all(a >= b for a, b in pairwise(rates[warmup:]))


@pytest.mark.parametrize(("step", "total", "warmup"), [(-1, 10, 0), (10, 10, 0), (0, 10, 10), (0, 0, 0)])
def test_a_step_outside_the_run_is_refused(step: int, total: int, warmup: int) -> None:
    with pytest.raises(ValueError, match="step"):
        learning_rate(step, total, warmup, PEAK, LOW)
