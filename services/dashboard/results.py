"""A finished job's summary as what its page shows. Whatever is missing from a summary is left out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bgpanet.text import FIGURES
from services.dashboard.drawing import Square, square
from services.dashboard.formatting import figure, is_number
from services.predictions import Ranked

MAIN = {name: FIGURES[name] for name in ("balanced_accuracy", "macro_f1", "accuracy")}
OTHERS = {name: label for name, label in FIGURES.items() if name not in MAIN}


@dataclass(frozen=True)
class MainFigure:
    """A figure in [0, 1] with its 95 % interval, and what always naming the commonest class reaches."""

    label: str
    value: float
    bounds: tuple[float, float] | None
    constant: float | None
    folds: Mapping[str, Any] | None


@dataclass(frozen=True)
class Cell:
    """Images of one true class that were given one class; `rate` is their share of the row."""

    predicted: str
    count: int
    rate: float
    right: bool


@dataclass(frozen=True)
class ConfusionRow:
    """All images of one true class."""

    truth: str
    total: int
    cells: list[Cell]


@dataclass(frozen=True)
class Results:
    """What a training's or a cross-validation's page shows of its figures."""

    main: list[MainFigure]
    others: list[tuple[str, float | None, Mapping[str, Any] | None]]
    constant_class: str | None
    confusion: list[ConfusionRow]
    per_class: list[Mapping[str, Any]]
    images: int | None
    subgroups: Mapping[str, list[Mapping[str, Any]]]
    operating: list[Mapping[str, Any]]


def results(summary: Mapping[str, Any]) -> Results:
    """Of the summary of a training (`figures`) or a cross-validation (`pooled`)."""
    figures = summary.get("pooled") or summary.get("figures") or {}
    intervals, means = summary.get("intervals") or {}, summary.get("mean") or {}
    constant = figures.get("constant_predictor") or {}
    per_class = figures.get("per_class") or []
    classes = summary.get("classes") or [row.get("class") for row in per_class]
    return Results(
        main=[
            MainFigure(label, figures[name], _bounds(intervals.get(name)), constant.get(name), means.get(name))
            for name, label in MAIN.items()
            if is_number(figures.get(name))
        ],
        others=[(label, figures[name], means.get(name)) for name, label in OTHERS.items() if name in figures],
        constant_class=constant.get("class"),
        confusion=_confusion(classes, figures.get("confusion_matrix") or []),
        per_class=per_class,
        images=figures.get("n"),
        subgroups=summary.get("subgroups") or {},
        operating=summary.get("operating_points") or [],
    )


def squares(summary: Mapping[str, Any], ranked: Sequence[Ranked]) -> list[Square]:
    """ROC, precision and recall, reliability: those of which there is something."""
    found = []
    if ranked:
        roc = [(f"{one.name} ({one.images})", one.roc) for one in ranked]
        precision = [(f"{one.name} ({one.images})", one.precision) for one in ranked]
        note = "each class against all others; in brackets its images"
        found += [
            square("ROC", ("1 \N{MINUS SIGN} specificity", "sensitivity"), roc, note, diagonal=True),
            square("Precision and recall", ("recall", "precision"), precision, note, steps=True),
        ]
    calibration = summary.get("calibration") or {}
    lines = []
    for when, words in (("before", "as trained"), ("after", "after temperature scaling")):
        part = calibration.get(when) or {}
        bins = [row for row in part.get("reliability") or [] if row.get("images")]
        if bins:
            name = f"{words}, calibration error {figure(part.get('ece'))}"
            lines.append((name, [(row["confidence"], row["accuracy"]) for row in bins]))
    if lines:
        note = "of images with about this probability for the named class, the share that is right"
        axes = ("probability of the named class", "share that is right")
        found.append(square("Reliability", axes, lines, note, diagonal=True, dots=True))
    return found


def main_figure(summary: Mapping[str, Any]) -> MainFigure | None:
    """Balanced accuracy, for lists; None where there is none."""
    return next((figure for figure in results(summary).main if figure.label == MAIN["balanced_accuracy"]), None)


def _bounds(interval: Any) -> tuple[float, float] | None:
    ends = tuple(interval or ())
    return (ends[0], ends[1]) if len(ends) == 2 and all(is_number(end) for end in ends) else None


def _confusion(classes: list[str], matrix: list[list[int]]) -> list[ConfusionRow]:
    if not matrix or len(classes) != len(matrix):
        return []
    return [
        ConfusionRow(truth, sum(row), [_cell(classes[k], n, sum(row), k == at) for k, n in enumerate(row)])
        for at, (truth, row) in enumerate(zip(classes, matrix, strict=True))
    ]


def _cell(predicted: str, count: int, total: int, right: bool) -> Cell:
    return Cell(predicted, count, count / total if total else 0.0, right)
