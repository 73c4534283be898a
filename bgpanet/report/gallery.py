"""Which test images a report shows, and the file that keeps them: small pictures with their Grad-CAM maps.

`gallery.json` of each fold is all that the page of a cross-validation needs of the folds' images and nets.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from bgpanet.errors import InvalidInput
from bgpanet.evaluation.predictions import PredictionTable

GALLERY = "gallery.json"
WORST = 12
MOST_CLASSES = 20  # of which examples are shown


@dataclass(frozen=True)
class Answer:
    """What a net said of a test image. probability: of the class that it named, `predicted`."""

    image_id: str
    group: str
    fold: int | None
    truth: str
    predicted: str
    probability: float
    probability_of_truth: float

    @property
    def is_right(self) -> bool:
        return self.truth == self.predicted


@dataclass(frozen=True)
class Picture(Answer):
    """An answer with its image and the Grad-CAM map of the class that was named, over the image: JPEG, base64.

    overlay: None where there is no map.
    """

    image: str
    overlay: str | None


A = TypeVar("A", bound=Answer)


def answers(table: PredictionTable) -> list[Answer | None]:
    """A row each; None where the truth is not known to the net, or the image could not be read."""
    truths, predicted, best = table.truth_labels(), table.predicted, table.probabilities.max(axis=1)
    return [
        None
        if truth < 0 or table.errors[n]
        else Answer(
            table.image_ids[n],
            table.groups[n],
            table.folds[n],
            table.truths[n],
            predicted[n],
            float(best[n]),
            float(table.probabilities[n, truth]),
        )
        for n, truth in enumerate(truths)
    ]


def worst(found: Sequence[A]) -> list[A]:
    """The wrong answers that were given with the most confidence, the worst first."""
    wrong = [answer for answer in found if not answer.is_right]
    return sorted(wrong, key=lambda answer: (-answer.probability, answer.image_id))[:WORST]


def examples(found: Sequence[A], classes: Sequence[str]) -> list[tuple[str, A | None, A | None]]:
    """Of each class the most confident right answer and the most confident wrong one, None where there is none."""
    rows = []
    for name in classes[:MOST_CLASSES]:
        of_class = sorted(
            (answer for answer in found if answer.truth == name), key=lambda a: (-a.probability, a.image_id)
        )
        right = next((answer for answer in of_class if answer.is_right), None)
        rows.append((name, right, next((answer for answer in of_class if not answer.is_right), None)))
    return rows


def chosen(table: PredictionTable) -> list[int]:
    """Rows of the table that a report of it shows, ascending."""
    found = answers(table)
    known = [answer for answer in found if answer is not None]
    shown = {answer.image_id for answer in worst(known)}
    shown |= {a.image_id for _, *pair in examples(known, table.classes) for a in pair if a is not None}
    return [n for n, answer in enumerate(found) if answer is not None and answer.image_id in shown]


def write_gallery(pictures: Sequence[Picture], folder: Path) -> Path:
    """Writes `gallery.json`. Returns its path."""
    path = folder / GALLERY
    path.write_text(json.dumps({"version": 1, "pictures": [asdict(p) for p in pictures]}), encoding="utf-8")
    return path


def read_gallery(folder: Path) -> list[Picture]:
    """The pictures in a folder; none where it has no gallery: runs of older versions left none.

    Raises:
        InvalidInput: the file is no gallery.
    """
    path = folder / GALLERY
    if not path.is_file():
        return []
    try:
        return [Picture(**values) for values in json.loads(path.read_text(encoding="utf-8"))["pictures"]]
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInput.one(str(path), f"is no gallery: {error}") from None
