"""Figures and times as a person reads them."""

import math
from collections.abc import Mapping
from typing import Any, TypeGuard

MISSING = "\N{EN DASH}"
FIGURES = {
    "balanced_accuracy": "Balanced accuracy",
    "macro_f1": "Macro F1",
    "accuracy": "Accuracy",
    "macro_precision": "Macro precision",
    "macro_recall": "Macro recall",
    "mcc": "Matthews correlation (MCC)",
    "cohen_kappa": "Cohen's kappa",
    "auroc_macro": "AUROC, macro",
    "auprc_macro": "AUPRC, macro",
    "nll": "Negative log-likelihood",
    "brier": "Brier score",
    "ece": "Expected calibration error",
}
"""Names of a run's figures, the main three first."""


def is_number(value: object) -> TypeGuard[float]:
    """Whether a figure is there and finite."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def figure(value: object, bounds: object = None) -> str:
    """A figure with its 95 % interval, if there is one: `0.412 (0.371–0.455)`."""  # noqa: RUF002
    if not is_number(value):
        return MISSING
    if isinstance(bounds, (list, tuple)) and len(bounds) == 2 and all(is_number(end) for end in bounds):
        return f"{value:.3f} ({bounds[0]:.3f}\N{EN DASH}{bounds[1]:.3f})"
    return f"{value:.3f}"


def spread(figures: object) -> str:
    """A mean with its standard deviation: `0.412 ± 0.031`."""
    mean, sd = (figures.get("mean"), figures.get("sd")) if isinstance(figures, dict) else (None, None)
    return f"{figure(mean)} ± {sd:.3f}" if is_number(sd) else figure(mean)


def share(fraction: object) -> str:
    """`38.7 %`."""
    return f"{100 * fraction:.1f} %" if is_number(fraction) else MISSING


def count(number: object) -> str:
    """`10,015`."""
    return f"{number:,}" if is_number(number) else MISSING


def duration(seconds: float) -> str:
    """`42 s`, `3 min 05 s`, `2 h 07 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def interval(value: float, bounds: tuple[float, float] | list[float] | None) -> str:
    """`0.412 (0.371-0.455)`: a figure with its 95 % interval, if there is one."""
    text = f"{value:.3f}"
    return text if bounds is None else f"{text} ({bounds[0]:.3f}-{bounds[1]:.3f})"


def figures_brief(summary: Mapping[str, Any]) -> str:
    """What a list shows of a run's summary."""
    if "variants" in summary:
        missing = f", {len(summary['missing'])} trainings are missing" if summary["missing"] else ""
        return f"{len(summary['variants'])} variants against {summary['reference']}{missing}"
    if "group_unit" in summary:
        return _registered(summary)
    figures = summary.get("pooled") or summary.get("figures")
    if figures is None:
        return f"{summary.get('images', 0)} images, {summary.get('unreadable', 0)} unreadable"
    bounds = summary.get("intervals", {}).get("balanced_accuracy")
    return f"balanced accuracy {interval(figures['balanced_accuracy'], bounds)}"


def figures_line(summary: Mapping[str, Any]) -> str:
    """The main figures of a run's summary in one line."""
    if "variants" in summary:
        return _study_line(summary)
    if "methods" in summary:
        return _explanation_line(summary)
    if "group_unit" in summary:
        return _registered(summary)
    figures = summary.get("pooled") or summary.get("figures")
    if figures is None:
        counts = ", ".join(f"{name} {count}" for name, count in summary.get("predicted", {}).items() if count)
        return f"{summary.get('images', 0)} images, {summary.get('unreadable', 0)} unreadable: {counts}"
    intervals = summary.get("intervals", {})
    constant = figures["constant_predictor"]
    parts = [
        f"balanced accuracy {interval(figures['balanced_accuracy'], intervals.get('balanced_accuracy'))}",
        f"accuracy {interval(figures['accuracy'], intervals.get('accuracy'))}",
        f"macro F1 {interval(figures['macro_f1'], intervals.get('macro_f1'))}",
        f"(always {constant['class']}: balanced accuracy {constant['balanced_accuracy']:.3f},"
        f" accuracy {constant['accuracy']:.3f})",
        f"leaking groups {summary['leakage']['groups']}",
    ]
    if "mean" in summary:
        mean = summary["mean"]["balanced_accuracy"]
        parts.insert(1, f"folds {mean['mean']:.3f} ± {mean['sd']:.3f}" if mean["sd"] is not None else "one fold")
    return "; ".join(parts)


def _registered(summary: Mapping[str, Any]) -> str:
    groups = "" if summary["group_unit"] == "image" else f" of {summary['groups']} {summary['group_unit']}s"
    return f"{summary['images']} images{groups}, {len(summary['findings'])} findings"


def _study_line(summary: Mapping[str, Any]) -> str:
    rows = {row["variant"]: row["figures"]["balanced_accuracy"] for row in summary["variants"]}
    told = ", ".join(f"{name} {interval(row['mean'], row['interval'])}" for name, row in rows.items())
    missing = f"; {len(summary['missing'])} trainings are missing" if summary["missing"] else ""
    return f"balanced accuracy: {told}{missing}; leaking groups {summary['leakage']['groups']}"


def _explanation_line(summary: Mapping[str, Any]) -> str:
    told = f"{summary['images']} images explained by {', '.join(summary['methods'])}"
    for part, found in (summary["randomised"] or {}).items():
        alike = "no map left" if found["mean"] is None else f"rank correlation {found['mean']:.2f}"
        told += f"; with random {part} {alike}"
    return told
