"""The curves of a run as its checkpoints and its report keep them: bounded, and the same after any death."""

from collections.abc import Mapping

MOST_POINTS = 500  # of one curve
Curves = dict[str, list[list[float]]]
"""By name: the optimizer steps, ascending, and the values there."""


def is_kept(number: int, total: int) -> bool:
    """Whether point `number` of `total`, from 1, is kept: every n-th, so that there are few enough, and the last."""
    return number % max(1, -(-total // MOST_POINTS)) == 0 or number == total


def remember(curves: Curves, step: int, values: Mapping[str, float]) -> None:
    """Adds a point to each curve, with six digits."""
    for name, value in values.items():
        steps, kept = curves.setdefault(name, [[], []])
        steps.append(step)
        kept.append(float(f"{value:.6g}"))
