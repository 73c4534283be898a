"""The same figures for parts of the patients: age band, sex, site."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bgpanet.evaluation.bootstrap import grouped_intervals
from bgpanet.evaluation.metrics import checked, confusion_matrix, macro_figures, tallies

FIGURES = ("accuracy", "balanced_accuracy", "macro_f1")
UNKNOWN = "unknown"
BANDS = ((30, "under 30"), (50, "30 to 49"), (70, "50 to 69"), (float("inf"), "70 and over"))


def age_band(text: str) -> str:
    """`under 30`, `30 to 49`, `50 to 69`, `70 and over`, or unknown."""
    try:
        years = float(text)
    except ValueError:
        return UNKNOWN
    return next((name for limit, name in BANDS if 0 <= years < limit), UNKNOWN)


def _plain(text: str) -> str:
    return text if text.strip() else UNKNOWN


ATTRIBUTES: dict[str, tuple[str, Callable[[str], str]]] = {
    "age": ("age", age_band),
    "sex": ("sex", _plain),
    "site": ("localization", _plain),
}
"""Name of the division: the attribute of an image that decides, and how."""


def subgroup_figures(
    y_true: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    groups: Sequence[str],
    attributes: Sequence[Mapping[str, str]],
    resamples: int = 1000,
) -> dict[str, list[dict[str, Any]]]:
    """For each division its parts, the largest first: `part`, `images`, `groups`, `classes` that occur, accuracy,
    balanced accuracy (over the classes that occur) and macro F1 with `intervals` over groups, {} for a single group;
    `constant_accuracy`: of always answering the part's commonest class.

    A division that no image tells of is left out. Small parts have wide intervals; they are there to be read.

    Raises InvalidInput as `classification_metrics`.
    """
    y, p = checked(y_true, probabilities)
    names = np.asarray(groups)
    found: dict[str, list[dict[str, Any]]] = {}
    for division, (attribute, part_of) in ATTRIBUTES.items():
        parts = np.array([part_of(values.get(attribute, "")) for values in attributes])
        if (parts == UNKNOWN).all():
            continue
        rows = [_figures(part, parts == part, y, p, names, resamples) for part in sorted(set(parts.tolist()))]
        found[division] = sorted(rows, key=lambda row: -row["images"])
    return found


def _figures(
    part: str,
    inside: npt.NDArray[np.bool_],
    y: npt.NDArray[np.int64],
    p: npt.NDArray[np.float64],
    groups: npt.NDArray[np.str_],
    resamples: int,
) -> dict[str, Any]:
    truth, said, names = y[inside], p[inside], groups[inside]
    macro = macro_figures(*tallies(confusion_matrix(truth, said.argmax(axis=1), p.shape[1])))
    several = len(set(names.tolist())) > 1
    intervals = grouped_intervals(truth, said, names, resamples) if several else {}
    return {
        "part": part,
        "images": int(inside.sum()),
        "groups": len(set(names.tolist())),
        "classes": len(set(truth.tolist())),
        **{name: float(macro[name]) for name in FIGURES},
        "intervals": {name: intervals[name] for name in FIGURES if name in intervals},
        "constant_accuracy": float(np.bincount(truth).max() / len(truth)),
    }
