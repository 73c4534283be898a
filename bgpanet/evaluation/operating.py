"""Operating points: a class against all others at a threshold that was frozen on the validation part."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bgpanet.evaluation.bootstrap import draws
from bgpanet.evaluation.metrics import FloatArray, checked

SPECIFICITIES = (0.9, 0.95)


def frozen_thresholds(
    y_true: npt.ArrayLike, probabilities: npt.ArrayLike, specificities: Sequence[float] = SPECIFICITIES
) -> list[dict[str, float | None]]:
    """For each class a threshold for each specificity, by its text: `[{"0.9": t, "0.95": t}, …]`.

    An image is called positive where p(class) > t. t is the least value of the negatives' p that leaves at least the
    wanted share of them at or below it. None where there are no negatives.

    To be fitted on the validation part. Raises InvalidInput as `classification_metrics`.
    """
    y, p = checked(y_true, probabilities)
    found: list[dict[str, float | None]] = []
    for k in range(p.shape[1]):
        negatives = np.sort(p[y != k, k])
        found.append({f"{wanted:g}": _threshold(negatives, wanted) for wanted in specificities})
    return found


def operating_points(
    y_true: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    groups: npt.ArrayLike,
    thresholds: Sequence[dict[str, float | None]],
    classes: Sequence[str],
    resamples: int = 2000,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """What thresholds frozen elsewhere reach here: for each class and wanted specificity `threshold`, `sensitivity` and
    `specificity` with their 95 % intervals by a bootstrap over groups. None where undefined.

    Raises InvalidInput as `classification_metrics`.
    """
    y, p = checked(y_true, probabilities, classes)
    index = np.unique(np.asarray(groups), return_inverse=True)[1]
    weights = draws(resamples, int(index.max()) + 1, np.random.default_rng(seed))
    rows = []
    for k, name in enumerate(classes):
        for wanted, threshold in thresholds[k].items():
            row: dict[str, Any] = {"class": name, "wanted_specificity": float(wanted), "threshold": threshold}
            if threshold is not None:
                called = p[:, k] > threshold
                row["sensitivity"], row["sensitivity_interval"] = _share(called, y == k, index, weights)
                row["specificity"], row["specificity_interval"] = _share(~called, y != k, index, weights)
            rows.append(row)
    return rows


def _threshold(negatives: FloatArray, wanted: float) -> float | None:
    if not len(negatives):
        return None
    # At least this many at or below; a hair less than a whole number is that number.
    needed = int(np.ceil(wanted * len(negatives) - 1e-9))
    return float(negatives[max(needed, 1) - 1])


def _share(
    called: npt.NDArray[np.bool_], among: npt.NDArray[np.bool_], index: npt.NDArray[np.int64], weights: FloatArray
) -> tuple[float | None, list[float] | None]:
    """The share of `among` that is `called`, and its interval; None where there is nothing to share."""
    if not among.any():
        return None, None
    size = weights.shape[1]
    hits = weights @ np.bincount(index, weights=called & among, minlength=size)
    whole = weights @ np.bincount(index, weights=among, minlength=size)
    drawn = hits[whole > 0] / whole[whole > 0]
    return float((called & among).sum() / among.sum()), [float(q) for q in np.quantile(drawn, (0.025, 0.975))]
