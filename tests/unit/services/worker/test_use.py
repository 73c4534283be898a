"""How busy a slot was: means over the time between heartbeats."""

import pytest

from services.fleet_use import Use
from services.worker.use import UseMeter


class Time:
    """A clock that stands still until it is told."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_job_counts_for_the_time_that_it_was_there_and_figures_for_the_time_before_them() -> None:
    time = Time()
    meter = UseMeter(time)
    told = []
    for now, busy, gpu in ((0, False, 0.0), (15, True, 0.0), (45, False, 90.0), (60, False, 30.0)):
        time.now = now
        told.append(meter.saw(busy, {"gpu_percent": gpu, "cpu_percent": 10.0}))
    assert told == [None, None, None, Use(0.5, (30 * 90 + 15 * 30) / 60, 10.0)]
    meter.told()
    time.now = 120
    assert meter.saw(False, {"cpu_percent": 50.0}) == Use(0.0, None, 50.0)


def test_what_could_not_be_written_is_told_with_what_follows() -> None:
    time = Time()
    meter = UseMeter(time)
    meter.saw(True, {})
    for now in (60, 120):
        time.now = now
        use = meter.saw(now < 60, {})
    assert use is not None
    assert use.busy == pytest.approx(0.5)


def test_what_was_written_is_not_told_again() -> None:
    time = Time()
    meter = UseMeter(time)
    meter.saw(True, {})
    time.now = 61
    assert meter.saw(True, {}) == Use(1.0, None, None)
    meter.told()
    time.now = 66
    assert meter.saw(True, {}) is None
