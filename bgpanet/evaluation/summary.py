"""Everything that a report says of a test part, and of the test parts of all folds together; plain JSON values."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bgpanet.evaluation.bootstrap import grouped_intervals
from bgpanet.evaluation.calibration import reliability, scaled
from bgpanet.evaluation.metrics import FloatArray, classification_metrics
from bgpanet.evaluation.operating import operating_points
from bgpanet.evaluation.subgroups import subgroup_figures

CALIBRATION_FIGURES = ("nll", "brier", "ece")


def evaluate(
    truth: npt.NDArray[np.int64],
    probabilities: FloatArray,
    groups: Sequence[str],
    attributes: Sequence[Mapping[str, str]],
    temperature: float,
    thresholds: Sequence[dict[str, float | None]],
    classes: Sequence[str],
) -> dict[str, Any]:
    """A test part, n images. Temperature and thresholds (see `frozen_thresholds`) were fitted on the validation part.

    figures: `classification_metrics`. intervals: 95 % over groups, of every figure that has one. class_intervals:
    AUROC and AUPRC of each class. calibration: temperature, the figures before and after it, reliability diagrams.
    operating_points: sensitivity and specificity at thresholds frozen on validation. subgroups: by age, sex and site.
    """
    return {
        "figures": classification_metrics(truth, probabilities, classes),
        **divided(grouped_intervals(truth, probabilities, np.asarray(groups)), classes),
        "calibration": {
            "temperature": temperature,
            **calibration(truth, probabilities, scaled(probabilities, temperature)),
        },
        "operating_points": operating_points(truth, probabilities, groups, thresholds, classes),
        "subgroups": subgroup_figures(truth, probabilities, groups, attributes),
    }


def evaluate_pooled(
    truth: npt.NDArray[np.int64],
    parts: Sequence[FloatArray],
    groups: Sequence[str],
    attributes: Sequence[Mapping[str, str]],
    folds: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """The same of all folds: `parts` are their probabilities, `folds` their reports; labels and groups in that order.

    calibration: each part scaled by its own fold's temperature. operating_points: mean and standard deviation (ddof 1)
    over folds, each at its own threshold; None where a fold has none.
    """
    temperatures = [fold["calibration"]["temperature"] for fold in folds]
    pooled = np.concatenate(list(parts))
    after = np.concatenate([scaled(part, t) for part, t in zip(parts, temperatures, strict=True)])
    return {
        "calibration": {"temperatures": temperatures, **calibration(truth, pooled, after)},
        "operating_points": _mean_points([fold["operating_points"] for fold in folds]),
        "subgroups": subgroup_figures(truth, pooled, groups, attributes),
    }


def divided(intervals: Mapping[str, tuple[float, float]], classes: Sequence[str]) -> dict[str, Any]:
    """`intervals` of whole figures, and `class_intervals` of those of one class: {class: {auroc, auprc}}."""
    whole = {name: list(ends) for name, ends in intervals.items() if "/" not in name}
    of_class: dict[str, dict[str, list[float]]] = {name: {} for name in classes}
    for name, ends in intervals.items():
        figure, _, k = name.partition("/")
        if k:
            of_class[classes[int(k)]][figure] = list(ends)
    return {"intervals": whole, "class_intervals": of_class}


def calibration(truth: npt.NDArray[np.int64], before: FloatArray, after: FloatArray) -> dict[str, Any]:
    """nll, brier, ece and the reliability diagram, before and after scaling."""
    found = {}
    for name, probabilities in {"before": before, "after": after}.items():
        figures = classification_metrics(truth, probabilities)
        found[name] = {figure: figures[figure] for figure in CALIBRATION_FIGURES}
        found[name]["reliability"] = reliability(truth, probabilities)
    return found


def _mean_points(folds: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    rows = []
    for points in zip(*folds, strict=True):
        row = {name: points[0][name] for name in ("class", "wanted_specificity")}
        for name in ("sensitivity", "specificity"):
            values = [point.get(name) for point in points]
            known = [value for value in values if value is not None]
            complete = len(known) == len(values)
            row[name] = float(np.mean(known)) if complete else None
            row[f"{name}_sd"] = float(np.std(known, ddof=1)) if complete and len(known) > 1 else None
        rows.append(row)
    return rows
