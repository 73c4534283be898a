"""A job's curves over the optimizer step, as plain JSON that `static/charts.js` hands to plotly."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from services.curves import MOST_POINTS, Point
from services.dashboard.formatting import is_number

Series = Mapping[str, Sequence[Point]]
MOST_DRAWN, LEAST_POINTS = 8000, 100  # points of all lines of a page together, and of a line among however many


@dataclass(frozen=True)
class Line:
    """One curve. `per_epoch`: few points, each marked; else many, drawn thin. faint: what a smoothed one is made of."""

    name: str
    x: list[int]
    y: list[float | None]
    per_epoch: bool
    faint: bool = False


@dataclass(frozen=True)
class Chart:
    """Curves that share an axis. `note` says in words what they show. may_be_log: whether a logarithm makes sense."""

    id: str
    title: str
    lines: list[Line]
    note: str
    may_be_log: bool = False
    kept_step: int | None = None


def points_each(lines: int) -> int:
    """Of how many points each of so many lines may be, that a browser draws all of them without a pause."""
    return max(LEAST_POINTS, min(MOST_POINTS, MOST_DRAWN // max(lines, 1)))


def training_charts(series: Series, kept_step: int | None = None, smooth: Series | None = None) -> list[Chart]:
    """The curves of one training; those of which there is nothing yet are left out. smooth: the same series, smoothed,
    drawn over them."""
    drawn = [
        _chart("loss", "Loss", [("train_loss", "training", False), ("validation_loss", "validation", True)],
               series, smooth, best=min),
        _chart("accuracy", "Balanced accuracy, validation",
               [("validation_balanced_accuracy", "balanced accuracy", True)], series, smooth, best=max),
        _chart("rate", "Learning rate", [("learning_rate", "learning rate", False)], series),
        _chart("weights", "Weights of the Dual-Tailed Loss",
               [("loss_weight_ce", "cross-entropy", False), ("loss_weight_focal", "focal", False)], series),
    ]  # fmt: skip
    return [replace(chart, kept_step=kept_step) for chart in drawn if chart.lines]


def run_charts(runs: Mapping[str, Series], runs_are: str = "fold") -> list[Chart]:
    """The curves of several trainings over each other: validation figures of every one, by its name."""
    wanted = (
        ("loss", f"Loss, validation, by {runs_are}", "validation_loss", min),
        ("accuracy", f"Balanced accuracy, validation, by {runs_are}", "validation_balanced_accuracy", max),
    )
    drawn = []
    for id, title, name, best in wanted:
        lines = [_line(run, series[name], per_epoch=True) for run, series in runs.items() if series.get(name)]
        drawn.append(Chart(id, title, lines, _note_of_runs(lines, best, runs_are), may_be_log=id == "loss"))
    return [chart for chart in drawn if chart.lines]


def _chart(
    id: str,
    title: str,
    wanted: Sequence[tuple[str, str, bool]],
    series: Series,
    smooth: Series | None = None,
    best: Any = None,
) -> Chart:
    """wanted: (series, name, whether it has one point an epoch)."""
    lines, said = [], []
    for name, label, per_epoch in wanted:
        if not series.get(name):
            continue
        line = _line(label, series[name], per_epoch)
        said.append(_note(line, best))
        if smooth is not None and smooth.get(name):
            lines.append(replace(line, name=f"{label}, as it is", faint=True))
            line = _line(label, smooth[name], per_epoch)
        lines.append(line)
    return Chart(id, title, lines, "; ".join(said), may_be_log=id in ("loss", "rate"))


def _line(name: str, points: Sequence[Point], per_epoch: bool) -> Line:
    # JSON knows no infinity; a gap in the curve shows it.
    values = [float(f"{point.value:.6g}") if is_number(point.value) else None for point in points]
    return Line(name, [point.step for point in points], values, per_epoch)


def _note(line: Line, best: Any) -> str:
    known = [(y, x) for x, y in zip(line.x, line.y, strict=True) if y is not None]
    if not known:
        return f"{line.name}: no finite value"
    value, step = known[-1]
    text = f"{line.name}: {value:.4g} at step {step}"
    if best is not None and line.per_epoch:
        value, step = best(known, key=lambda pair: pair[0])
        text += f", best {value:.4g} at step {step}"
    return text


def _note_of_runs(lines: Sequence[Line], best: Any, runs_are: str) -> str:
    values = [[y for y in line.y if y is not None] for line in lines]
    ends = sorted(best(of_run) for of_run in values if of_run)
    return f"best of each {runs_are}: {ends[0]:.4g} to {ends[-1]:.4g}" if ends else "no finite value"
