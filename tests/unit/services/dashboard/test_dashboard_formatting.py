"""Figures, times and sizes as a person reads them."""

from datetime import UTC, datetime
from typing import Any

import pytest

from services.dashboard import formatting

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
DASH = "\N{EN DASH}"


@pytest.mark.parametrize(
    ("value", "bounds", "text"),
    [
        (0.4118, [0.371, 0.4549], f"0.412 (0.371{DASH}0.455)"),
        (0.4118, None, "0.412"),
        (0.5, [0.1, None], "0.500"),
        (0.5, [0.1], "0.500"),
        (-0.02, (-0.1, 0.06), f"-0.020 (-0.100{DASH}0.060)"),
        (1, None, "1.000"),
        (None, [0.1, 0.2], DASH),
        (float("nan"), None, DASH),
        (float("inf"), None, DASH),
        (True, None, DASH),
        ("0.4", None, DASH),
    ],
)
def test_a_figure_stands_with_its_interval(value: object, bounds: object, text: str) -> None:
    assert formatting.figure(value, bounds) == text


@pytest.mark.parametrize(
    ("figures", "text"),
    [
        ({"mean": 0.6482, "sd": 0.0541}, "0.648 ± 0.054"),
        ({"mean": 0.6, "sd": None}, "0.600"),
        ({"mean": None, "sd": None}, DASH),
        (None, DASH),
    ],
)
def test_a_mean_stands_with_its_standard_deviation(figures: object, text: str) -> None:
    assert formatting.spread(figures) == text


@pytest.mark.parametrize(
    ("fraction", "text"),
    [(0, "0 %"), (0.29, "29 %"), (0.999, "99 %"), (1.0, "100 %"), (1.7, "100 %"), (-1, "0 %"), (None, DASH)],
)
def test_a_hundred_percent_is_said_only_of_what_is_done(fraction: object, text: str) -> None:
    assert formatting.percent(fraction) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (42.4, "42 s"), (185, "3 min 05 s"), (7620, "2 h 07 min"), (-3, "0 s"), (None, DASH)],
)
def test_durations(seconds: object, text: str) -> None:
    assert formatting.duration(seconds) == text


@pytest.mark.parametrize(
    ("iso", "text"),
    [
        ("2026-03-01T11:59:55.000Z", "just now"),
        ("2026-03-01T12:00:30.000Z", "just now"),
        ("2026-03-01T11:59:48.000Z", "12 s ago"),
        ("2026-03-01T11:54:01.000Z", "5 min ago"),
        ("2026-03-01T09:00:00.000Z", "3 h ago"),
        ("2026-02-28T11:00:00.000Z", "1 day ago"),
        ("2026-02-22T11:00:00.000Z", "7 days ago"),
        ("2026-03-01T12:54:00.000+01:00", "6 min ago"),
        ("2026-01-30T12:00:01.000Z", "29 days ago"),
        ("2026-01-30T12:00:00.000Z", "2026-01-30"),
    ],
)
def test_times_are_told_from_now(iso: str, text: str) -> None:
    assert formatting.relative(iso, NOW) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "in a moment"),
        (29.9, "in a moment"),
        (31, "in about 1 min"),
        (299, "in about 5 min"),
        (5399, "in about 90 min"),
        (7300, "in about 2 h"),
        (None, "at a time that is not known"),
    ],
)
def test_an_estimate_is_told_no_finer_than_it_is_known(seconds: object, text: str) -> None:
    assert formatting.soon(seconds) == text


@pytest.mark.parametrize(
    ("position", "text"),
    [(1, "Next in the queue"), (1204, "Number 1,204 in the queue"), (None, "Not in the queue yet")],
)
def test_a_place_in_the_queue(position: int | None, text: str) -> None:
    assert formatting.place_in_queue({"position": position}) == text


def test_docstrings_show_code_and_no_markup() -> None:
    assert formatting.ticked("see `bgpanet models`, <b> & `a<b`") == (
        "see <code>bgpanet models</code>, &lt;b&gt; &amp; <code>a&lt;b</code>"
    )


@pytest.mark.parametrize(
    ("iso", "text"),
    [
        ("2026-03-01T11:59:00Z", "now"),
        ("2026-03-01T12:00:00.400Z", "now"),
        ("2026-03-01T12:00:42Z", "in 42 s"),
        ("2026-03-01T12:00:58Z", "in 1 min"),
        ("2026-03-01T12:09:40Z", "in 10 min"),
        ("2026-03-01T15:20:00Z", "in 3 h"),
        ("2026-03-02T11:59:30Z", "in 1 day"),
        ("2026-03-31T11:59:30Z", "in 30 days"),
        (None, DASH),
    ],
)
def test_times_to_come_are_told_from_now(iso: str | None, text: str) -> None:
    assert formatting.until(iso, NOW) == text


def test_exact_times_are_in_utc() -> None:
    assert formatting.exact("2026-03-01T14:05:09.123+02:00") == "2026-03-01 12:05:09 UTC"
    assert formatting.exact(None) == formatting.ago(None) == DASH


@pytest.mark.parametrize(
    ("begin", "end", "seconds"),
    [
        ("2026-03-01T11:00:00Z", "2026-03-01T11:00:30Z", 30.0),
        ("2026-03-01T11:00:00Z", None, 3600.0),
        (None, None, None),
    ],
)
def test_what_has_not_ended_has_lasted_until_now(begin: str | None, end: str | None, seconds: float | None) -> None:
    assert formatting.seconds_between(begin, end, NOW) == seconds


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (1_449_999, "1.4 MB"),
        (999_950, "1.0 MB"),
        (135_000_000_000, "135.0 GB"),
        (2_000_000_000_000_000, "2000.0 TB"),
        (None, DASH),
    ],
)
def test_sizes(number: Any, text: str) -> None:
    assert formatting.size(number) == text


def test_counts_and_shares() -> None:
    assert formatting.count(10015) == "10,015"
    assert formatting.count(None) == DASH
    assert formatting.share(0.387) == "38.7 %"
    assert formatting.share(None) == DASH
