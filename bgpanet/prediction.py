"""Batch inference: a trained model, or several together, applied to every image of a data set.

A service may cut a large data set into shards, each a run of its own; then one more run joins their tables.
"""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from bgpanet.bundles import ModelCard
from bgpanet.compute import Compute, choose_compute
from bgpanet.data.batches import on_device
from bgpanet.data.index import Index
from bgpanet.data.pixels import Part, stream_pixels
from bgpanet.ensemble import Ensemble, answers, load_cards, load_models
from bgpanet.errors import Interrupted, InvalidInput
from bgpanet.evaluation.predictions import PredictionTable, PredictionWriter, no_formula
from bgpanet.events import Log, Progress, Result
from bgpanet.experiment import Workplace, read_data
from bgpanet.inference import infer_batches
from bgpanet.specs import PredictSpec


def predict(spec: PredictSpec, place: Workplace) -> dict[str, Any]:
    """Writes `predictions.csv` and `predictions.parquet`, a row for each image in the data set's order; an unreadable
    image is a row with its error and no probabilities, and all of these stand in `errors.csv`. Returns the summary,
    which is also reported as `Result`.

    Images that are not in the pixel cache yet are decoded ahead of the network, and rows are written as they come, so
    memory does not grow with the data set but for its index. Where the output holds what shards left (`shard-0`, …),
    nothing is computed: their tables are joined.

    Raises:
        InvalidInput, OutOfMemory, Interrupted.
    """
    folder = Path(spec.model)
    cards = load_cards(folder)
    card = cards[0]
    index = read_data(spec)
    wanted = _wanted(spec, index)
    shards = _shards(place.output)
    if any(card.synthetic for card in cards) and not index.synthetic:
        place.report(Log(level="warning", message="the model was trained on drawn images: its answers mean nothing"))
    place.output.mkdir(parents=True, exist_ok=True)
    if shards:
        tables = joined(shards, spec.batch_size)
    else:
        compute = choose_compute(spec.precision, place.threads)
        compute.activate()
        models, _ = load_models(folder)
        within = None if spec.shard is None else wanted
        tables = answer(models.to(compute.device), card, index, spec.batch_size, compute, place, within)
    with Answers(place.output, card.classes) as written:
        for table in tables:
            written.append(table, index, wanted)
            if place.stop():
                raise Interrupted("stopped between two batches; the next try starts over")
            message = f"{written.images} of {len(wanted)} images"
            place.report(Progress(fraction=0.99 * written.images / len(wanted), message=message))
        if written.images != len(wanted):
            raise InvalidInput.one("shards", f"hold {written.images} of {len(wanted)} images")
    for path in written.files:
        place.hand_in(path)
    summary = {
        "images": len(wanted),
        "predicted": {name: int(count) for name, count in zip(card.classes, written.predicted, strict=True)},
        "unreadable": written.unreadable,
        "synthetic": index.synthetic or any(card.synthetic for card in cards),
        "members": len(cards),
        "shards": len(shards),
    }
    if len(cards) > 1:
        summary["mean_disagreement"] = written.mean_disagreement
    place.report(Result(summary=summary))
    return summary


def answer(
    models: Ensemble,
    card: ModelCard,
    index: Index,
    batch_size: int,
    compute: Compute,
    place: Workplace,
    within: range | None = None,
) -> Iterator[PredictionTable]:
    """The rows of one batch after the other, of all images or those at some positions. Raises OutOfMemory."""
    parts = stream_pixels(
        index, card.image_size, place.cache, batch_size, progress=place.decoding, limit=place.cache_limit, within=within
    )
    feed = ((part, images) for part, (images,) in on_device(_readable(parts), compute.device))
    for part, logits in infer_batches(models, feed, compute):
        yield _table(part, logits, index, card, len(models.members))


class Answers:
    """The files of a prediction, written row by row, and what they come to."""

    def __init__(self, folder: Path, classes: Sequence[str]) -> None:
        self.files = [folder / name for name in ("predictions.csv", "predictions.parquet", "errors.csv")]
        self.images = self.unreadable = 0
        self.predicted = np.zeros(len(classes), dtype=np.int64)
        self._disagreement = 0.0
        self._writer = PredictionWriter(self.files[0], self.files[1])
        self._partial = folder / ".errors.csv"
        self._errors = self._partial.open("w", newline="", encoding="utf-8", errors="backslashreplace")
        self._lines = csv.writer(self._errors, lineterminator="\n")
        self._lines.writerow(["image_id", "error"])

    def append(self, table: PredictionTable, index: Index, wanted: range) -> None:
        """Adds rows, which have to be those of the next images that are wanted. Raises InvalidInput."""
        expected = wanted[self.images : self.images + len(table.image_ids)]
        if [index.records[position].image_id for position in expected] != list(table.image_ids):
            raise InvalidInput.one("shards", f"hold other images than the data set from number {self.images} on")
        self._writer.append(table)
        self.images += len(expected)
        readable = np.array([not error for error in table.errors], dtype=bool)
        self.unreadable += int((~readable).sum())
        told = zip(table.image_ids, table.errors, strict=True)
        self._lines.writerows(map(no_formula, row) for row in told if row[1])
        best = table.probabilities[readable].argmax(axis=1)
        self.predicted += np.bincount(best, minlength=len(self.predicted))
        if table.disagreement is not None:
            self._disagreement += float(table.disagreement[readable].sum())

    @property
    def mean_disagreement(self) -> float | None:
        """Over readable images, nats; None where there is none."""
        readable = self.images - self.unreadable
        return self._disagreement / readable if readable else None

    def __enter__(self) -> Self:
        self._writer.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._errors.close()
        try:
            self._writer.__exit__(kind, error, at)
            if kind is None:
                self._partial.rename(self.files[2])
        finally:
            self._partial.unlink(missing_ok=True)


def _wanted(spec: PredictSpec, index: Index) -> range:
    """The positions that the run answers for. Raises InvalidInput."""
    everything = range(len(index.records))
    if spec.shard is None:
        return everything
    wanted = range(spec.shard.first, spec.shard.first + spec.shard.count)
    if wanted.stop > len(everything):
        what = f"ends at {wanted.stop}, behind the last of {len(everything)} images"
        raise InvalidInput.one("shard", what)
    return wanted


def _shards(output: Path) -> list[Path]:
    """The folders of shards, in order."""
    return sorted(output.glob("shard-*"), key=lambda path: int(path.name.removeprefix("shard-")))


def joined(shards: Sequence[Path], rows: int) -> Iterator[PredictionTable]:
    """The rows of shards one after the other, so many in memory at a time. Raises InvalidInput."""
    for shard in shards:
        yield from PredictionTable.stream(shard / "predictions.parquet", rows)


def _table(part: Part, logits: np.ndarray, index: Index, card: ModelCard, members: int) -> PredictionTable:
    """The rows of a part's images, given the logits (n, M, K) of those that could be read."""
    positions = np.arange(part.start, part.start + len(part.pixels))
    probabilities = np.full((len(positions), len(card.classes)), np.nan)
    disagreement = np.full(len(positions), np.nan)
    if len(logits):
        readable = _are_readable(part)
        probabilities[readable], disagreement[readable] = answers(logits)
    return PredictionTable.of(
        index,
        positions,
        probabilities,
        classes=card.classes,
        errors=part.errors,
        disagreement=disagreement if members > 1 else None,
    )


def _are_readable(part: Part) -> np.ndarray:
    """(n,) whether each image of a part could be read."""
    return np.array([part.start + n not in part.errors for n in range(len(part.pixels))], dtype=bool)


def _readable(parts: Iterator[Part]) -> Iterator[tuple[Part, tuple[Tensor, ...]]]:
    """Each part with its readable images."""
    for part in parts:
        yield part, (torch.from_numpy(part.pixels[_are_readable(part)]),)
