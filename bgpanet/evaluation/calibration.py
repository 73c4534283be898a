"""Do probabilities mean what they say: temperature scaling, and the reliability diagram's numbers."""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar

from bgpanet.evaluation.metrics import ECE_BINS, FloatArray, checked, image_terms

LEAST, MOST = 0.05, 20.0
"""Temperatures that are looked at."""


def fit_temperature(y_true: npt.ArrayLike, probabilities: npt.ArrayLike) -> float:
    """The temperature T that minimises the mean -ln p(true class) of p^(1/T), normalised (Guo et al., ICML 2017).

    p^(1/T) is the softmax of the logits divided by T. T > 1 makes probabilities less sure. To be fitted on the
    validation part, and on nothing that is reported. It changes no ranking and no predicted class.

    y_true: (n,); probabilities: (n, K). Raises InvalidInput as `classification_metrics`.
    """
    y, p = checked(y_true, probabilities)
    logits = _logits(p)

    def mean_nll(log_temperature: float) -> float:
        return float(_nll(logits / np.exp(log_temperature), y))

    # Convex in 1/T, so the minimum over the logarithm of T is the only one.
    found = minimize_scalar(mean_nll, bounds=(np.log(LEAST), np.log(MOST)), method="bounded", options={"xatol": 1e-7})
    return float(np.exp(found.x))


def scaled(probabilities: npt.ArrayLike, temperature: float) -> FloatArray:
    """Probabilities (n, K) at a temperature. Rows of NaN stay so."""
    logits = _logits(np.asarray(probabilities, dtype=np.float64)) / temperature
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: FloatArray = exponentials / exponentials.sum(axis=1, keepdims=True)
    return result


def reliability(y_true: npt.ArrayLike, probabilities: npt.ArrayLike) -> list[dict[str, Any]]:
    """For each of 15 bins of the top probability, open below and closed above: low, high, images, and of those the mean
    top probability (`confidence`) and the share predicted right (`accuracy`), None in an empty bin."""
    y, p = checked(y_true, probabilities)
    terms = image_terms(y, p)
    top = (p / p.sum(axis=1, keepdims=True)).max(axis=1)
    rows = []
    for number in range(ECE_BINS):
        inside = terms["bin"] == number
        images = int(inside.sum())
        confidence = float(top[inside].mean()) if images else None
        accuracy = float((top[inside] + terms["excess"][inside]).mean()) if images else None
        low, high = number / ECE_BINS, (number + 1) / ECE_BINS
        rows.append({"low": low, "high": high, "images": images, "confidence": confidence, "accuracy": accuracy})
    return rows


def _logits(p: FloatArray) -> FloatArray:
    # A probability of 0 is one that rounding made so.
    logits: FloatArray = np.log(np.maximum(p, np.finfo(np.float64).tiny))
    return logits


def _nll(logits: FloatArray, y: npt.NDArray[np.int64]) -> float:
    top = logits.max(axis=1)
    total = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
    return float((total - logits[np.arange(len(y)), y]).mean())
