"""How busy a slot is, measured from heartbeat to heartbeat and told once a minute."""

import time
from collections.abc import Callable, Mapping

from services.fleet_use import TOLD_SECONDS, Use


class UseMeter:
    """Adds up what heartbeats tell. What they tell of jobs holds from a heartbeat on, figures up to it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last, self._was_busy = clock(), False
        self.told()

    def saw(self, busy: bool, figures: Mapping[str, float]) -> Use | None:
        """Takes a heartbeat into account. Returns the means since they were told last, once it is time to tell."""
        now = self._clock()
        past, self._last = now - self._last, now
        self._seconds += past
        self._busy += past * self._was_busy
        self._was_busy = busy
        for name, (seconds, total) in self._sums.items():
            if (value := figures.get(name)) is not None:
                self._sums[name] = seconds + past, total + past * value
        if self._seconds < TOLD_SECONDS:
            return None
        means = {name: total / seconds if seconds else None for name, (seconds, total) in self._sums.items()}
        return Use(self._busy / self._seconds, **means)

    def told(self) -> None:
        """The means were written: others begin."""
        self._seconds = self._busy = 0.0
        self._sums = {"gpu_percent": (0.0, 0.0), "cpu_percent": (0.0, 0.0)}
