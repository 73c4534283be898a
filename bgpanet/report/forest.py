"""The figures of a study: each variant with its interval, and its difference to the reference."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bgpanet.report.drawing import MUTED, colour, short

PANELS = {
    "balanced_accuracy": "Balanced accuracy",
    "macro_f1": "Macro F1",
    "accuracy": "Accuracy",
    "auroc_macro": "AUROC, macro",
}
ROW = 0.26  # inches


def variants(summary: Mapping[str, Any]) -> Figure:
    """Mean over folds of each variant, its 95 % interval as a line, the folds as dots below; dashed, where told, the
    constant predictor."""
    rows = summary["variants"]
    figure, axes = _panels([row["variant"] for row in rows], summary["reference"])
    constant = summary.get("constant_predictor") or {}
    for at, name in zip(axes, PANELS, strict=True):
        found = [row["figures"][name] for row in rows]
        _intervals(at, [row["mean"] for row in found], [row["interval"] for row in found])
        for height, row in enumerate(found):
            below = [height + 0.24] * len(row["folds"])
            at.scatter(row["folds"], below, s=7, color=colour(0), alpha=0.5, linewidths=0)
        if name in constant:
            at.axvline(constant[name], color=MUTED, linewidth=1, linestyle="--")
    return figure


def differences(summary: Mapping[str, Any]) -> Figure:
    """Each variant minus the reference, with its 95 % interval."""
    names = list(dict.fromkeys(row["system"] for row in summary["tests"]))
    figure, axes = _panels(names, None)
    for at, name in zip(axes, PANELS, strict=True):
        rows = {row["system"]: row for row in summary["tests"] if row["figure"] == name}
        _intervals(at, [rows[n]["difference"] for n in names], [rows[n]["interval"] for n in names])
        at.axvline(0, color=MUTED, linewidth=1)
    return figure


def _panels(names: Sequence[str], reference: str | None) -> tuple[Figure, list[Axes]]:
    """Four panels, two a row, that share their rows of names."""
    height = ROW * (len(names) + 1) + 0.35
    figure = Figure(figsize=(9.2, 2 * height + 0.5))
    axes = [at for line in figure.subplots(2, 2, sharey=True) for at in line]
    for at, title in zip(axes, PANELS.values(), strict=True):
        at.set_title(title)
        at.set_yticks(range(len(names)), [f"{short(n)} (reference)" if n == reference else short(n) for n in names])
        at.set_ylim(len(names) - 0.4, -0.6)
        at.tick_params(axis="y", length=0, labelsize=9)
        at.grid(axis="y", visible=False)
        at.locator_params(axis="x", nbins=6)
    longest = max(len(label.get_text()) for label in axes[0].get_yticklabels())
    figure.subplots_adjust(left=min(0.35, 0.02 + 0.0095 * longest), right=0.985, wspace=0.06,
                           top=1 - 0.28 / figure.get_figheight(), bottom=0.3 / figure.get_figheight(),
                           hspace=0.55 / height)  # fmt: skip
    return figure, axes


def _intervals(at: Axes, means: Sequence[float], intervals: Sequence[Sequence[float]]) -> None:
    heights = np.arange(len(means))
    low, high = np.transpose(intervals)
    at.hlines(heights, low, high, color=colour(0), linewidth=2)
    at.scatter(means, heights, s=34, color=colour(0), zorder=3, linewidths=0)
