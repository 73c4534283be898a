"""Is one system better than another, and how sure is a share: tests and intervals for few folds and few images."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri, stdtr

from bgpanet.errors import InvalidInput, Problem


class PairedT(NamedTuple):
    """A paired t-test. t: the statistic, positive where a scores higher. p: two-sided."""

    t: float
    p: float


def corrected_paired_t(
    scores_a: Sequence[float],
    scores_b: Sequence[float],
    n_train: int | Sequence[int],
    n_test: int | Sequence[int],
) -> PairedT:
    """The corrected resampled t-test of two systems' scores on the same k folds (Nadeau & Bengio 2003).

    t = mean(d) / sqrt((1/k + n_test/n_train) · s²), with d the k differences a - b, s² their variance (ddof 1) and
    k - 1 degrees of freedom. The added term is for the training sets that the folds share; without it the test finds
    differences too easily, at k = 5 by a factor of 1.5 in t.

    n_train, n_test: images of the training and the test part, one number or one a fold; n_test/n_train is then the
        mean of the folds' ratios.

    Where the differences do not vary (beyond the rounding of the scores), t is 0 and p is 1 if there is no
    difference, else t is ±infinity and p is 0.

    Raises:
        InvalidInput: fewer than two folds, unequal lengths, scores that are not finite, sizes below 1.
    """
    a, b = np.asarray(scores_a, dtype=np.float64), np.asarray(scores_b, dtype=np.float64)
    train, test = np.atleast_1d(n_train), np.atleast_1d(n_test)
    problems = _paired_problems(a, b, {"n_train": train, "n_test": test})
    if problems:
        raise InvalidInput(problems)
    k, differences = len(a), a - b
    mean = float(differences.mean())
    # Scores such as 0.9 - 0.8 and 0.8 - 0.7 differ in their last bits only; that is no variance.
    rounding = 4 * np.finfo(np.float64).eps * max(np.abs(a).max(), np.abs(b).max())
    if np.ptp(differences) <= rounding:
        return PairedT(0.0, 1.0) if abs(mean) <= rounding else PairedT(math.copysign(math.inf, mean), 0.0)
    t = mean / math.sqrt((1 / k + float((test / train).mean())) * float(differences.var(ddof=1)))
    return PairedT(t, float(2 * stdtr(k - 1, -abs(t))))


def _paired_problems(
    a: npt.NDArray[np.float64], b: npt.NDArray[np.float64], sizes: dict[str, npt.NDArray[np.int64]]
) -> list[Problem]:
    if a.ndim != 1 or a.shape != b.shape:
        return [Problem("scores_b", f"must hold one score for each of a's folds; got shapes {a.shape} and {b.shape}")]
    problems = []
    if len(a) < 2:
        problems.append(Problem("scores_a", f"a paired test needs at least 2 folds; got {len(a)}"))
    for name, scores in {"scores_a": a, "scores_b": b}.items():
        if not np.isfinite(scores).all():
            problems.append(Problem(name, "must be finite; leave out no fold, but find out why its score is not"))
    for name, images in sizes.items():
        if images.ndim != 1 or len(images) not in (1, len(a)) or not (images >= 1).all():
            problems.append(Problem(name, f"must be one number of images, or one for each of {len(a)} folds, from 1"))
    return problems


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment of m p-values, in their order (Holm 1979).

    The i-th smallest becomes the largest of min(1, (m - j + 1)·p_(j)) over j ≤ i. Rejecting where the adjusted value
    is at most alpha keeps the chance of any false rejection at most alpha, however the tests depend on each other.

    Raises:
        InvalidInput: p-values outside [0, 1].
    """
    p = np.asarray(p_values, dtype=np.float64)
    if not ((p >= 0) & (p <= 1)).all():
        raise InvalidInput.one("p_values", "must lie between 0 and 1")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return [float(value) for value in adjusted]


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval (low, high) of a share (Wilson 1927); sensible at 0 and n successes, and at small n.

    Raises:
        InvalidInput: n below 1, successes outside 0…n, confidence outside (0, 1).
    """
    problems = []
    if n < 1 or not 0 <= successes <= n:
        problems.append(Problem("successes", f"must be between 0 and n, and n at least 1; got {successes} of {n}"))
    if not 0 < confidence < 1:
        problems.append(Problem("confidence", f"must lie strictly between 0 and 1; got {confidence}"))
    if problems:
        raise InvalidInput(problems)
    z2 = float(ndtri((1 + confidence) / 2)) ** 2
    centre = (successes + z2 / 2) / (n + z2)
    reach = math.sqrt(z2 * (successes * (n - successes) / n + z2 / 4)) / (n + z2)
    # At n of n the upper end is 1, which rounding would miss; at 0 of n centre and reach are the same number.
    return (centre - reach, 1.0 if successes == n else centre + reach)
