"""A job's curves over the optimizer step, as plain JSON that `static/charts.js` hands to plotly."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from services.dashboard.formatting import is_number

MOST_POINTS = 1000  # of a line; a chart is narrower than that
Series = Mapping[str, Sequence[Mapping[str, Any]]]


@dataclass(frozen=True)
class Line:
    """One curve. `per_epoch`: few points, each marked; else many, drawn thin."""

    name: str
    x: list[int]
    y: list[float | None]
    per_epoch: bool


@dataclass(frozen=True)
class Chart:
    """Curves that share an axis. `note` says in words what they show."""

    id: str
    title: str
    lines: list[Line]
    note: str
    kept_step: int | None = None


def training_charts(series: Series, kept_step: int | None = None) -> list[Chart]:
    """The curves of one training; those of which there is nothing yet are left out."""
    drawn = [
        _chart(
            "accuracy",
            "Balanced accuracy, validation",
            [("balanced accuracy", series.get("validation_balanced_accuracy"), True)],
            best=max,
        ),
        _chart(
            "loss",
            "Loss",
            [("training", series.get("train_loss"), False), ("validation", series.get("validation_loss"), True)],
            best=min,
        ),
        _chart("rate", "Learning rate", [("learning rate", series.get("learning_rate"), False)]),
        _chart(
            "weights",
            "Weights of the Dual-Tailed Loss",
            [
                ("cross-entropy", series.get("loss_weight_ce"), False),
                ("focal", series.get("loss_weight_focal"), False),
            ],
        ),
    ]
    return [replace(chart, kept_step=kept_step) for chart in drawn if chart.lines]


def fold_charts(folds: Mapping[str, Series]) -> list[Chart]:
    """The curves of a cross-validation: validation figures of every fold, by the fold's name."""
    wanted = (
        ("accuracy", "Balanced accuracy, validation, by fold", "validation_balanced_accuracy", max),
        ("loss", "Loss, validation, by fold", "validation_loss", min),
    )
    drawn = [
        (_chart(id, title, [(fold, series.get(name), True) for fold, series in folds.items()]), best)
        for id, title, name, best in wanted
    ]
    return [replace(chart, note=_note_of_folds(chart.lines, best)) for chart, best in drawn if chart.lines]


def _chart(
    id: str, title: str, lines: Sequence[tuple[str, Sequence[Mapping[str, Any]] | None, bool]], best: Any = None
) -> Chart:
    drawn = [_line(name, points, per_epoch) for name, points, per_epoch in lines if points]
    return Chart(id, title, drawn, "; ".join(_note(line, best) for line in drawn))


def _line(name: str, points: Sequence[Mapping[str, Any]], per_epoch: bool) -> Line:
    chosen = _thinned(points)
    # JSON knows no infinity; a gap in the curve shows it.
    values = [float(f"{p['value']:.6g}") if is_number(p["value"]) else None for p in chosen]
    return Line(name, [p["step"] for p in chosen], values, per_epoch)


def _thinned(points: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """At most `MOST_POINTS` at even distances, the last one always."""
    stride = -(-len(points) // MOST_POINTS)
    return points if stride <= 1 else points[::-1][::stride][::-1]


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


def _note_of_folds(lines: Sequence[Line], best: Any) -> str:
    values = [[y for y in line.y if y is not None] for line in lines]
    ends = sorted(best(of_fold) for of_fold in values if of_fold)
    return f"best of each fold: {ends[0]:.4g} to {ends[-1]:.4g}" if ends else "no finite value"
