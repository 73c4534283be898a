"""Ratios of two timings taken in turn, which hold on a machine whose speed drifts."""

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

PAIRS = 9


@dataclass(frozen=True)
class Ratio:
    """The median over pairs of (seconds of `what` / seconds of `over`), with the quartiles of the pairs' ratios."""

    what: str
    over: str
    ratio: float
    quartiles: tuple[float, float]
    pairs: int
    seconds: tuple[float, float]

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Figure:
    """Something that is no ratio of times."""

    what: str
    value: float

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def compare(
    what: str,
    run: Callable[[], object],
    over: str,
    reference: Callable[[], object],
    pairs: int = PAIRS,
    clock: Callable[[], float] = time.perf_counter,
) -> Ratio:
    """Runs both once to warm up, then in turn, A B B A A B …, and compares pair by pair, by the wall or another clock
    (`time.process_time`: seconds of this process on all cores). One that returns a float has timed itself."""
    run()
    reference()
    first, second = [], []
    for number in range(pairs):
        order = (run, reference) if number % 2 == 0 else (reference, run)
        times = {function: _seconds(function, clock) for function in order}
        first.append(times[run])
        second.append(times[reference])
    ratios = sorted(a / b for a, b in zip(first, second, strict=True))
    low, _, high = statistics.quantiles(ratios, n=4)
    medians = statistics.median(first), statistics.median(second)
    return Ratio(what, over, statistics.median(ratios), (low, high), pairs, medians)


def _seconds(function: Callable[[], object], clock: Callable[[], float]) -> float:
    begun = clock()
    told = function()
    return told if isinstance(told, float) else clock() - begun
