"""Curves that stay small."""

from hypothesis import given
from hypothesis import strategies as st

from bgpanet.training.history import MOST_POINTS, Curves, is_kept, remember


@given(st.integers(1, 20_000))
def test_few_points_of_a_curve_are_kept_the_last_among_them(total: int) -> None:
    kept = [number for number in range(1, total + 1) if is_kept(number, total)]
    assert min(total, MOST_POINTS) // 2 < len(kept) <= MOST_POINTS + 1
    assert kept[-1] == total


def test_a_curve_grows_point_by_point() -> None:
    curves: Curves = {}
    remember(curves, 1, {"loss": 1 / 3})
    remember(curves, 3, {"loss": 0.25, "rate": 1e-7 / 3})
    assert curves == {"loss": [[1, 3], [0.333333, 0.25]], "rate": [[3], [3.33333e-08]]}
