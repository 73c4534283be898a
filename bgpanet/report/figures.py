"""The figures of a training's and a cross-validation's page."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bgpanet.report.drawing import INK, LINE, MUTED, colour, line_style, short

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Curves = Mapping[str, Sequence[Sequence[float]]]
"""As `bgpanet.training.history.Curves`."""

MOST_POINTS = 250  # of a curve
MOST_CLASSES = 30  # of which curves can be told apart
PANELS = {
    "Loss": {"train_loss_of_epoch": "training, mean of the epoch", "validation_loss": "validation, cross-entropy"},
    "Balanced accuracy, validation": {"validation_balanced_accuracy": "balanced accuracy"},
    "Learning rate": {"learning_rate": "learning rate"},
    "Weights of the Dual-Tailed Loss": {"loss_weight_ce": "cross-entropy", "loss_weight_focal": "focal"},
}
BALANCED = "Balanced accuracy, validation"


def curves(runs: Mapping[str, Curves], kept: Mapping[str, int], chance: float) -> Figure:
    """Loss, balanced accuracy, learning rate and the weights of the loss over one axis of optimizer steps.

    runs: one training, or folds by their names; kept: the step whose weights each kept. chance: the balanced accuracy
    of a constant answer.
    """
    panels = {
        title: series
        for title, series in PANELS.items()
        if any(name in found for found in runs.values() for name in series)
    }
    figure = Figure(figsize=(8.0, 1.65 * len(panels) + 0.35))
    axes = np.atleast_1d(figure.subplots(len(panels), sharex=True))
    for at, (title, series) in zip(axes, panels.items(), strict=True):
        _panel(at, title, series, runs)
        if title == BALANCED:
            at.axhline(chance, color=MUTED, linewidth=1, linestyle=":")
            at.set_ylim(0, 1)
        at.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        for number, (run, step) in enumerate(kept.items()):
            at.axvline(step, color=INK if len(runs) == 1 else colour(number), linewidth=0.8, linestyle=(0, (2, 3)))
            if len(runs) == 1 and title == next(iter(panels)):
                at.annotate(f"kept, {run}", (step, 1), xycoords=("data", "axes fraction"), fontsize=8, color=MUTED,
                            xytext=(3, -9), textcoords="offset points")  # fmt: skip
    axes[-1].set_xlabel("optimizer step")
    figure.align_ylabels(list(axes))
    figure.subplots_adjust(left=0.085, right=0.99, top=1 - 0.28 / figure.get_figheight(),
                           bottom=0.45 / figure.get_figheight(), hspace=0.38)  # fmt: skip
    return figure


def _panel(at: Axes, title: str, series: Mapping[str, str], runs: Mapping[str, Curves]) -> None:
    """One training: a colour for each series. Several: a colour for each, the first of two series dashed."""
    at.set_title(title)
    several = len(runs) > 1
    for number, (run, found) in enumerate(runs.items()):
        if not several and title == "Loss" and "train_loss" in found:
            at.plot(*found["train_loss"], color=colour(0), linewidth=0.6, alpha=0.35)
        for order, name in enumerate(name for name in series if name in found):
            steps, values = found[name]
            at.plot(
                steps,
                values,
                label=(run if order == 0 else None) if several else series[name],
                color=colour(number if several else order),
                linestyle="--" if several and order < len(series) - 1 else "-",
                marker="o" if len(steps) == 1 else None,
                markersize=3,
            )
    if (several and title in ("Loss", BALANCED)) or (not several and len(series) > 1):
        at.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=8, handlelength=1.4, columnspacing=1.0)


def ranking(truth: IntArray, probabilities: FloatArray, figures: Sequence[Mapping[str, Any]]) -> Figure:
    """ROC and precision-recall curves of each class against all others; `figures`: their rows of `per_class`."""
    order = sorted(range(len(figures)), key=lambda k: -figures[k]["support"])[:MOST_CLASSES]
    figure = Figure(figsize=(9.6, max(3.9, 0.185 * len(order) + 0.9)))
    roc, pr, legend = figure.subplots(1, 3, width_ratios=(1, 1, 0.55))
    for number, k in enumerate(sorted(order)):
        row, positive = figures[k], truth == k
        look = {"color": colour(number), "linestyle": line_style(number), "linewidth": 1.3}
        name = f"{short(row['class'])} ({row['support']})"
        legend.plot([], [], label=name, **look)
        if not positive.any() or positive.all():
            continue
        hits, alarms = _cumulated(positive, probabilities[:, k])
        recall, false_rate = hits / positive.sum(), alarms / (~positive).sum()
        roc.plot(*_thinned(np.append(0, false_rate), np.append(0, recall)), **look)
        # Only where an image of the class is found: the area under these steps is the average precision.
        found = np.diff(hits, prepend=0) > 0
        precision = (hits / (hits + alarms))[found]
        pr.plot(*_thinned(np.append(0, recall[found]), np.append(precision[0], precision)),
                drawstyle="steps-pre", **look)  # fmt: skip
    roc.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=":")
    roc.set(title="ROC", xlabel="1 - specificity", ylabel="sensitivity")
    pr.set(title="Precision and recall", xlabel="recall (sensitivity)", ylabel="precision")
    for at in (roc, pr):
        at.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.03), box_aspect=1)
    legend.set_axis_off()
    legend.legend(loc="upper left", bbox_to_anchor=(-0.1, 1.0), title="class (images)", alignment="left",
                  title_fontsize=8)  # fmt: skip
    figure.subplots_adjust(left=0.06, right=0.99, bottom=0.45 / figure.get_figheight(), top=1 - 0.3 /
                           figure.get_figheight(), wspace=0.22)  # fmt: skip
    return figure


def _cumulated(positive: npt.NDArray[np.bool_], scores: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Hits and false alarms at each threshold, the highest first; equal scores share one."""
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    return np.cumsum(positive[order])[last].astype(float), np.cumsum(~positive[order])[last].astype(float)


def _thinned(x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
    """At most `MOST_POINTS` + 1 points, evenly along the curve, its ends among them."""
    if len(x) <= MOST_POINTS:
        return x, y
    along = np.append(0, np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y))))
    chosen = np.unique(np.append(np.searchsorted(along, np.linspace(0, along[-1], MOST_POINTS)), len(x) - 1))
    return x[chosen], y[chosen]


def reliability(calibration: Mapping[str, Any]) -> Figure:
    """Share predicted right over the mean top probability of 15 bins, before and after temperature scaling; below, how
    many images stand in each bin."""
    figure = Figure(figsize=(5.4, 5.2))
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    upper.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=":", label="perfect")
    for number, (name, label) in enumerate({"before": "as predicted", "after": "temperature-scaled"}.items()):
        rows = [row for row in calibration[name]["reliability"] if row["images"]]
        total = sum(row["images"] for row in rows)
        look = {"color": colour(1 - number)}
        x, shares = [row["confidence"] for row in rows], [row["images"] / total for row in rows]
        upper.plot(x, [row["accuracy"] for row in rows], linewidth=1.2, label=label, **look)
        upper.scatter(
            x, [row["accuracy"] for row in rows], s=[8 + 120 * share for share in shares], linewidths=0, **look
        )
        width = rows[0]["high"] - rows[0]["low"]
        lower.bar([row["low"] + width * (0.3 + 0.4 * number) for row in rows], shares, width=width * 0.36, **look)
    upper.set(xlim=(0, 1), ylim=(-0.03, 1.03), ylabel="share predicted right")
    lower.set(xlabel="top probability", ylabel="images")
    lower.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    lower.grid(axis="x", color=LINE)
    upper.legend(loc="upper left")
    figure.subplots_adjust(left=0.13, right=0.98, bottom=0.09, top=0.98, hspace=0.08)
    figure.align_ylabels([upper, lower])
    return figure
