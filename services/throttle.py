"""How often a token may ask: a bucket of requests for each, which fills again at a steady rate.

The buckets lie in the process that answers, not in Redis: what they protect are this process's threads, an answer must
not wait for Redis or depend on it, and nothing is lost with them. So of several API processes each has its own.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

MOST_KNOWN = 10_000  # keys; those that were not heard of for longest are forgotten, and then have a full bucket


class Throttle:
    """Buckets by key: `burst` requests at once, and `per_second` more each second."""

    def __init__(self, per_second: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._burst, self._clock = per_second, burst, clock
        self._lock = threading.Lock()
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # key -> (requests left, at)

    def take(self, key: str) -> float:
        """Takes one request out of a bucket. Returns 0, or in how many seconds there is one where it is empty."""
        with self._lock:
            now = self._clock()
            left, at = self._buckets.get(key, (float(self._burst), now))
            left = min(self._burst, left + (now - at) * self._rate)
            wait = 0.0 if left >= 1 else (1 - left) / self._rate
            self._buckets[key] = (left if wait else left - 1, now)
            self._buckets.move_to_end(key)
            if len(self._buckets) > MOST_KNOWN:
                self._buckets.popitem(last=False)
            return wait
