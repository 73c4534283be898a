"""What a job answered for each image, read from the `predictions.csv` of its result: rankings, and the images of a cell
of the confusion matrix. Rows are streamed; of a class only its scores are held."""

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

import numpy as np
import numpy.typing as npt

from services.artifacts import ArtifactStore
from services.tables import Artifact

FILE = "predictions.csv"
MOST_BYTES = 40_000_000  # of a table from which a page's curves are drawn
MOST_POINTS = 200  # of a curve
PREFIX = "p_"

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Ranked:
    """How one class stands out against all others; `images` are its own.

    roc: (1 - specificity, sensitivity), precision: (recall, precision), both from left to right, thinned.
    """

    name: str
    images: int
    roc: list[tuple[float, float]]
    precision: list[tuple[float, float]]


@dataclass(frozen=True)
class Answer:
    """One image with a known class and an answer. probability: of the predicted class."""

    image_id: str
    truth: str
    predicted: str
    probability: float | None


def rankings(store: ArtifactStore, artifact: Artifact) -> list[Ranked]:
    """ROC and precision-recall curves of each class that occurs and is not the only one; [] of a table without truths
    or one that is too large to read for a page. Raises StorageError."""
    return [] if artifact.size > MOST_BYTES else list(_rankings(_Source(store, artifact.key, artifact.sha256)))


def cell(store: ArtifactStore, artifact: Artifact, truth: str, predicted: str, most: int) -> list[Answer]:
    """The first images of one class that were given one class, in the table's order. Raises StorageError."""
    with _rows(store, artifact.key) as rows:
        found = (row for row in rows if row.get("truth") == truth and row.get("predicted") == predicted)
        return [
            Answer(row["image_id"], truth, predicted, _number(row.get(f"{PREFIX}{predicted}")))
            for row in islice(found, most)
        ]


class _Source:
    """A table by its content: equal where the digest is."""

    def __init__(self, store: ArtifactStore, key: str, sha256: str) -> None:
        self.store, self.key, self.sha256 = store, key, sha256

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Source) and other.sha256 == self.sha256

    def __hash__(self) -> int:
        return hash(self.sha256)


@lru_cache(maxsize=64)
def _rankings(source: _Source) -> tuple[Ranked, ...]:
    truths: list[str] = []
    scores: list[list[float]] = []
    with _rows(source.store, source.key) as rows:
        classes = [name.removeprefix(PREFIX) for name in rows.fieldnames or () if name.startswith(PREFIX)]
        for row in rows:
            values = [_number(row[f"{PREFIX}{name}"]) for name in classes]
            known = [value for value in values if value is not None]
            if row.get("truth") in classes and len(known) == len(classes):
                truths.append(row["truth"])
                scores.append(known)
    answered, names = np.array(scores, dtype=np.float64), np.array(truths)
    found = []
    for k, name in enumerate(classes if truths else ()):
        is_of_class = names == name
        if is_of_class.any() and not is_of_class.all():
            found.append(_ranked(name, is_of_class, answered[:, k]))
    return tuple(found)


def _ranked(name: str, positive: npt.NDArray[np.bool_], scores: FloatArray) -> Ranked:
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)  # equal scores share a threshold
    hits = np.cumsum(positive[order])[last].astype(float)
    alarms = np.cumsum(~positive[order])[last].astype(float)
    recall, false_rate = hits / positive.sum(), alarms / (~positive).sum()
    precision = hits / (hits + alarms)
    found = np.diff(hits, prepend=0) > 0  # only where an image of the class is found
    ends = [(0.0, float(precision[found][0]))]
    return Ranked(
        name,
        int(positive.sum()),
        _thinned([(0.0, 0.0), *zip(false_rate.tolist(), recall.tolist(), strict=True)]),
        _thinned([*ends, *zip(recall[found].tolist(), precision[found].tolist(), strict=True)]),
    )


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most `MOST_POINTS`, evenly along the curve, its ends among them."""
    if len(points) <= MOST_POINTS:
        return points
    steps = np.abs(np.diff(np.array(points), axis=0)).sum(axis=1)
    along = np.append(0, np.cumsum(steps))
    chosen = np.searchsorted(along, np.linspace(0, along[-1], MOST_POINTS - 1)).clip(0, len(points) - 1)
    return [points[n] for n in np.unique(np.append(chosen, len(points) - 1)).tolist()]


@contextmanager
def _rows(store: ArtifactStore, key: str) -> Iterator["csv.DictReader[str]"]:
    with store.open(key) as binary, io.TextIOWrapper(binary, encoding="utf-8", newline="") as text:
        yield csv.DictReader(text)


def _number(text: str | None) -> float | None:
    return float(text) if text else None
