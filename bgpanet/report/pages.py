"""The page of a run and its model card, from what the run left.

A run is worth more than its picture: a figure that cannot be drawn is told on the page in its place, and in
`Page.problems`, and the rest stands. Whatever is missing from a report (one of an older version, a class without test
images, folds without pictures) is left out or said, never an error.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import ChainableUndefined, Environment, FileSystemLoader
from markupsafe import Markup
from matplotlib.figure import Figure

from bgpanet import text
from bgpanet.evaluation.predictions import PredictionTable
from bgpanet.report import figures, forest
from bgpanet.report.drawing import inline_svg, style
from bgpanet.report.gallery import MOST_CLASSES, WORST, Picture, examples, worst
from bgpanet.report.recipe import settings

TEMPLATES = Path(__file__).with_name("templates")
KINDS = {"train": "Training", "cross_validate": "Cross-validation", "study": "Study"}
PARTS = ("train", "validation", "test")
_MARKDOWN = str.maketrans({**{sign: f"\\{sign}" for sign in "\\`*_{}[]#|~"}, "<": "&lt;", ">": "&gt;", "&": "&amp;"})


@dataclass(frozen=True)
class Material:
    """What the pages of a training or a cross-validation are made of.

    report: as in `report.json`. table: the test part. pictures: of its images. folds: the folds' own reports, in order,
    none for a training.
    """

    report: Mapping[str, Any]
    table: PredictionTable
    pictures: Sequence[Picture] = ()
    folds: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Drawn:
    """A figure as SVG, or why there is none; neither where it has nothing to show."""

    svg: Markup | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Page:
    """html: the whole page. problems: what is missing on it and why."""

    html: str
    problems: tuple[str, ...]


def run_page(material: Material) -> Page:
    """The page of a training or a cross-validation."""
    values = _values(material)
    drawings = _drawings(material)
    problems = tuple(f"{name}: {drawn.problem}" for name, drawn in drawings.items() if drawn.problem)
    html = _html().get_template("run.html").render(**values, drawings=drawings, problems=problems)
    return Page(html, problems)


def study_page(report: Mapping[str, Any], table: Sequence[Sequence[str]]) -> Page:
    """The page of a study. table: `bgpanet.study.table_rows`, with its head."""
    drawings = {"variants": _drawn("variants", lambda: forest.variants(report))}
    if report.get("tests"):
        drawings["differences"] = _drawn("differences", lambda: forest.differences(report))
    problems = tuple(f"{name}: {drawn.problem}" for name, drawn in drawings.items() if drawn.problem)
    html = (
        _html()
        .get_template("study.html")
        .render(
            report=report,
            table=table,
            settings=settings(report.get("spec") or {}),
            drawings=drawings,
            problems=problems,
            kinds=KINDS,
            labels=text.FIGURES,
        )
    )
    return Page(html, problems)


def model_card(material: Material) -> str:
    """The model card, Markdown: what CLAIM (2024) and TRIPOD+AI (2024) ask for, as far as a program knows it."""
    return _markdown().get_template("model_card.md").render(**_values(material)).strip() + "\n"


# ── What the templates are given ──────────────────────────────────────────────────────────────────────────────────


def _values(material: Material) -> dict[str, Any]:
    report = material.report
    whole = report.get("pooled") or report.get("figures") or {}
    pictures = material.pictures
    return {
        "report": report,
        "kinds": KINDS,
        "parts": PARTS,
        "figures": whole,
        "labels": text.FIGURES,
        "is_pooled": "pooled" in report,
        "classes": report.get("classes") or list(material.table.classes),
        "groups": len(set(material.table.groups)),
        "confusion": _confusion(report.get("classes") or [], whole.get("confusion_matrix") or []),
        "settings": settings(report.get("spec") or {}),
        "folds": material.folds,
        "first": material.folds[0] if material.folds else report,
        "worst": worst(pictures),
        "most_worst": WORST,
        "examples": examples(pictures, material.table.classes) if pictures else [],
        "most_classes": MOST_CLASSES,
        "wrong": sum(t != p for t, p in zip(material.table.truths, material.table.predicted, strict=True)),
    }


def _confusion(classes: Sequence[str], matrix: Sequence[Sequence[int]]) -> list[dict[str, Any]]:
    return [
        {
            "truth": name,
            "total": sum(row),
            "cells": [
                {"count": count, "rate": count / max(1, sum(row)), "right": k == at, "predicted": classes[k]}
                for k, count in enumerate(row)
            ],
        }
        for at, (name, row) in enumerate(zip(classes, matrix, strict=False))
    ]


def _drawings(material: Material) -> dict[str, Drawn]:
    report, table = material.report, material.table
    whole = report.get("pooled") or report.get("figures") or {}
    found = {"curves": _drawn("curves", lambda: _curves(material))}
    if whole.get("per_class"):
        known = table.truth_labels() >= 0
        truth, p = table.truth_labels()[known], table.probabilities[known].astype(np.float64)
        found["ranking"] = _drawn("ranking", lambda: figures.ranking(truth, p, whole["per_class"]))
    if report.get("calibration"):
        found["reliability"] = _drawn("reliability", lambda: figures.reliability(report["calibration"]))
    return found


def _curves(material: Material) -> Figure | None:
    report = material.report
    runs = {f"fold {n}": fold for n, fold in enumerate(material.folds)} or {"training": report}
    known = {name: run for name, run in runs.items() if run.get("curves")}
    kept = {
        name if material.folds else f"epoch {run['kept']['epoch']}": run["kept"]["step"]
        for name, run in known.items()
        if run.get("kept")
    }
    chance = 1 / max(1, len(report.get("classes") or ()))
    return figures.curves({name: run["curves"] for name, run in known.items()}, kept, chance) if known else None


def _drawn(name: str, draw: Callable[[], Figure | None]) -> Drawn:
    try:
        with style():
            figure = draw()
            return Drawn() if figure is None else Drawn(svg=Markup(inline_svg(figure, name)))  # noqa: S704 - escaped there
    except Exception as error:
        return Drawn(problem=f"{type(error).__name__}: {error}")


# ── Templates ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _signed(value: object) -> str:
    return f"{value:+.3f}" if text.is_number(value) else text.MISSING


def _between(bounds: object) -> str:
    """`0.371–0.455`."""  # noqa: RUF002
    ends = [text.figure(end) for end in bounds] if isinstance(bounds, (list, tuple)) else []
    return text.MISSING.join(ends)


def _p_value(value: object) -> str:
    if not text.is_number(value):
        return text.MISSING
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _plain(value: object) -> str:
    """A name as Markdown text: nothing of it is markup, and it stays in its line."""
    return re.sub(r"\s+", " ", str(value).translate(_MARKDOWN))


FILTERS: dict[str, Callable[..., str]] = {
    "figure": text.figure,
    "spread": text.spread,
    "share": text.share,
    "count": text.count,
    "signed": _signed,
    "between": _between,
    "p_value": _p_value,
}


def _html() -> Environment:
    return _environment(autoescape=True)


def _markdown() -> Environment:
    return _environment(finalize=_plain)  # it escapes whatever is put in


def _environment(**options: Any) -> Environment:
    made = Environment(  # noqa: S701 - see the two callers
        loader=FileSystemLoader(TEMPLATES),
        undefined=ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        **options,
    )
    made.filters.update(FILTERS)
    return made
