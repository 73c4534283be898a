"""Figures, times and sizes as a person reads them. What is missing is a dash."""

import json
import math
import pprint
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup, escape

from bgpanet import text
from bgpanet.text import MISSING
from bgpanet.text import count as count
from bgpanet.text import figure as figure
from bgpanet.text import is_number as is_number
from bgpanet.text import share as share
from bgpanet.text import spread as spread
from services.fleet import Weights

REASONS = {
    "invalid_input": "What was asked for, or the data, is wrong. Correct it and submit again.",
    "out_of_memory": "The device ran out of memory. Use smaller batches, smaller images or a smaller model.",
    "non_finite_loss": "The loss became infinite or not a number. A lower learning rate or a longer warm-up helps.",
    "stalled": "The run said nothing for too long and was ended.",
    "time_limit": "The run took longer than it was allowed to.",
    "worker_lost": "Its worker disappeared, as often as a job is tried. Look at the worker's log.",
    "storage": "A file could not be stored or fetched, as often as a job is tried. Look at the artifact store.",
    "internal": "An error in the program ended the run. The log below and the worker's log tell more.",
}


OLD_SECONDS = 30 * 86_400
TICKED = re.compile("`([^`]+)`")


def percent(fraction: object) -> str:
    """Whole percents, rounded down: 100 % is said only of what is done."""
    return f"{math.floor(100 * min(max(fraction, 0), 1) + 1e-9)} %" if is_number(fraction) else MISSING


def size(number: object) -> str:
    """`340 B`, `1.4 MB`: decimal units, as disks are sold."""
    if not is_number(number):
        return MISSING
    value, unit = float(number), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 999.5:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def duration(seconds: object) -> str:
    """`42 s`, `3 min 05 s`, `2 h 07 min`."""
    return text.duration(max(seconds, 0.0)) if is_number(seconds) else MISSING


def soon(seconds: object) -> str:
    """When something begins that is only estimated: `in a moment`, `in about 4 min`, `in about 2 h`."""
    if not is_number(seconds):
        return "at a time that is not known"
    if seconds < 30:
        return "in a moment"
    minutes = max(round(seconds / 60), 1)
    return f"in about {minutes} min" if minutes <= 90 else f"in about {round(seconds / 3600)} h"


def place_in_queue(queue: dict[str, Any] | None) -> str:
    """Where a job stands that waits: `Next in the queue`, `Number 3 in the queue`, `Not in the queue yet`."""
    position = queue["position"] if queue else None
    if not position:
        return "Not in the queue yet"
    return "Next in the queue" if position == 1 else f"Number {count(position)} in the queue"


def seconds_between(begin: str | None, end: str | None, now: datetime) -> float | None:
    """From `begin` to `end`, or to now where there is no end yet; None before the beginning."""
    return None if begin is None else ((_moment(end) if end else now) - _moment(begin)).total_seconds()


def took(job: dict[str, Any]) -> str:
    """How long a job, or an attempt, has run or ran."""
    ended = job["ended_at"] if "ended_at" in job else job["finished_at"]
    return duration(seconds_between(job["started_at"], ended, datetime.now(UTC)))


def relative(iso: str, now: datetime) -> str:
    """`just now`, `5 min ago`, `3 h ago`, `2 days ago`; the day itself, `2026-03-01`, of what is a month old."""
    seconds = (now - _moment(iso)).total_seconds()
    if seconds >= OLD_SECONDS:
        return f"{_moment(iso):%Y-%m-%d}"
    if seconds < 10:
        return "just now"
    for length, unit in ((86_400, "day"), (3600, "h"), (60, "min"), (1, "s")):
        if seconds >= length:
            number = int(seconds // length)
            return f"{number} {unit}{'s' if unit == 'day' and number > 1 else ''} ago"
    raise AssertionError("at least ten seconds have passed")


def ago(iso: str | None) -> str:
    """`relative` to now."""
    return MISSING if iso is None else relative(iso, datetime.now(UTC))


def until(iso: str | None, now: datetime | None = None) -> str:
    """`now`, `in 5 min`, `in 3 h`, `in 2 days`: whole units, rounded."""
    if iso is None:
        return MISSING
    seconds = (_moment(iso) - (now or datetime.now(UTC))).total_seconds()
    for length, unit in ((86_400, "day"), (3600, "h"), (60, "min"), (1, "s")):
        if seconds >= 0.95 * length:
            number = max(1, round(seconds / length))
            return f"in {number} {unit}{'s' if unit == 'day' and number > 1 else ''}"
    return "now"


def exact(iso: str | None) -> str:
    """`2026-03-01 14:05:09 UTC`."""
    return MISSING if iso is None else f"{_moment(iso):%Y-%m-%d %H:%M:%S} UTC"


def clock(iso: str) -> str:
    """`14:05:09`, in UTC."""
    return f"{_moment(iso):%H:%M:%S}"


def words(name: str) -> str:
    """`cross_validate` as `cross-validate`, in running text."""
    return name.replace("_", "-")


def reason(name: str | None) -> str:
    """A failure's reason in plain words."""
    return REASONS.get(name or "", "The run failed.")


def weights(value: dict[str, Any]) -> str:
    """Which ImageNet weights a worker can have."""
    return str(Weights(**value))


def ticked(words: str) -> Markup:
    """Text of a docstring: what stands in `ticks` as code."""
    return Markup(TICKED.sub(r"<code>\1</code>", str(escape(words))))  # noqa: S704 - it was escaped


def pretty(value: object) -> str:
    """Plain data as indented JSON."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def python(value: object) -> str:
    """Plain data as Python source, to stand in a call four columns in."""
    return pprint.pformat(value, width=76, sort_dicts=False).replace("\n", "\n        ")


def _moment(iso: str) -> datetime:
    return datetime.fromisoformat(iso).astimezone(UTC)


FILTERS: dict[str, Callable[..., str]] = {
    function.__name__: function
    for function in (
        figure,
        spread,
        percent,
        share,
        count,
        size,
        duration,
        soon,
        place_in_queue,
        took,
        ago,
        until,
        exact,
        clock,
        words,
        reason,
        weights,
        ticked,
        pretty,
        python,
    )
}
