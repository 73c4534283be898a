"""Small pictures as SVG, drawn here and not in the browser: points scaled into a box, ready for a template."""

from collections.abc import Sequence
from dataclasses import dataclass

from services.dashboard.formatting import is_number

SIDE = 240  # of a square chart's box, user units
SPARK = (120, 28)  # width and height of a sparkline's box
STEPS = (180, 28)  # and of an area's in steps
LEAST = 1.0  # of an area's height, so that nothing is another thing than not known


@dataclass(frozen=True)
class Stroke:
    """A line in a box: its name, and `points` as SVG writes them. number: from 1, which of the series colours."""

    name: str
    points: str
    number: int


@dataclass(frozen=True)
class Square:
    """A chart of shares over shares: both axes run from 0 to 1."""

    title: str
    x: str
    y: str
    strokes: list[Stroke]
    note: str
    has_diagonal: bool = False
    has_dots: bool = False


def square(
    title: str,
    axes: tuple[str, str],
    lines: Sequence[tuple[str, Sequence[tuple[float, float]]]],
    note: str = "",
    *,
    steps: bool = False,
    diagonal: bool = False,
    dots: bool = False,
) -> Square:
    """A square chart. lines: (name, points from left to right); steps: the value holds to the left of a point."""
    strokes = []
    for number, (name, points) in enumerate(lines, start=1):
        drawn = _stepped(points) if steps else points
        at = " ".join(f"{SIDE * x:.1f},{SIDE * (1 - y):.1f}" for x, y in drawn)
        strokes.append(Stroke(name, at, (number - 1) % 6 + 1))
    return Square(title, *axes, strokes, note, diagonal, dots)


def sparkline(values: Sequence[float | None]) -> str:
    """The points of a small line from left to right, lowest value at the bottom; "" of less than two values."""
    known = [value for value in values if is_number(value)]
    if len(known) < 2:
        return ""
    low, high = min(known), max(known)
    width, height = SPARK
    span = high - low or 1.0
    return " ".join(
        f"{width * n / (len(known) - 1):.1f},{2 + (height - 4) * (high - value) / span:.1f}"
        for n, value in enumerate(known)
    )


def steps(values: Sequence[float | None]) -> str:
    """Shares from left to right as the path of an area in steps, full height for 1; a gap where None."""
    width, height = STEPS
    each = width / max(len(values), 1)
    return "".join(
        f"M{each * n:.1f} {height}v-{max(LEAST, height * min(value, 1.0)):.1f}h{each:.1f}V{height}z"
        for n, value in enumerate(values)
        if value is not None
    )


def _stepped(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    found = list(points[:1])
    for x, y in points[1:]:
        found += [(found[-1][0], y), (x, y)]
    return found


@dataclass(frozen=True)
class Bar:
    """One of several bars: its height as a share of the highest, and what it says."""

    height: float
    words: str


def bars(values: Sequence[tuple[float, str]]) -> list[Bar]:
    """Bars beside each other, of (value, words)."""
    highest = max((value for value, _ in values), default=0) or 1
    return [Bar(value / highest, words) for value, words in values]
