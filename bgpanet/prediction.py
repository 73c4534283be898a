"""Batch inference: a trained model applied to every image of a data set."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bgpanet.bundles import ModelCard, load_bundle
from bgpanet.compute import Compute, choose_compute
from bgpanet.data.batches import on_device
from bgpanet.data.index import Index
from bgpanet.data.pixels import Part, stream_pixels
from bgpanet.errors import Interrupted
from bgpanet.evaluation.predictions import PredictionTable, PredictionWriter
from bgpanet.events import Log, Progress, Result
from bgpanet.experiment import Workplace, read_data
from bgpanet.inference import infer_batches, softmax
from bgpanet.specs import PredictSpec


def predict(spec: PredictSpec, place: Workplace) -> dict[str, Any]:
    """Writes `predictions.csv` and `predictions.parquet`, a row for each image in the data set's order; an unreadable
    image is a row with its error and no probabilities. Returns the summary, which is also reported as `Result`.

    Images that are not in the pixel cache yet are decoded ahead of the network, and rows are written as they come, so
    memory does not grow with the data set but for its index.

    Raises:
        InvalidInput, OutOfMemory, Interrupted.
    """
    model, card = load_bundle(Path(spec.model))
    index = read_data(spec)
    compute = choose_compute(spec.precision, place.threads)
    compute.activate()
    if card.synthetic and not index.synthetic:
        place.report(Log(level="warning", message="the model was trained on drawn images: its answers mean nothing"))
    place.output.mkdir(parents=True, exist_ok=True)
    files = place.output / "predictions.csv", place.output / "predictions.parquet"
    with PredictionWriter(*files) as writer:
        predicted, unreadable = apply(model.to(compute.device), card, index, spec.batch_size, compute, place, writer)
    for path in files:
        place.hand_in(path)
    summary = {
        "images": len(index.records),
        "predicted": {name: int(count) for name, count in zip(card.classes, predicted, strict=True)},
        "unreadable": unreadable,
        "synthetic": index.synthetic or card.synthetic,
    }
    place.report(Result(summary=summary))
    return summary


def apply(
    model: nn.Module,
    card: ModelCard,
    index: Index,
    batch_size: int,
    compute: Compute,
    place: Workplace,
    writer: PredictionWriter,
) -> tuple[np.ndarray, int]:
    """Writes the rows of all images. Returns how many were found to be of each class, (K,), and how many unreadable.

    Raises:
        OutOfMemory, Interrupted.
    """
    total, unreadable, predicted = len(index.records), 0, np.zeros(len(card.classes), dtype=np.int64)
    parts = stream_pixels(
        index, card.image_size, place.cache, batch_size, progress=place.decoding, limit=place.cache_limit
    )
    feed = ((part, images) for part, (images,) in on_device(_readable(parts), compute.device))
    for part, logits in infer_batches(model, feed, compute):
        done = part.start + len(part.pixels)
        positions = np.arange(part.start, done)
        probabilities = np.full((len(positions), len(card.classes)), np.nan)
        if len(logits):
            probabilities[_are_readable(part)] = softmax(logits)
            predicted += np.bincount(logits.argmax(axis=1), minlength=len(card.classes))
        writer.append(PredictionTable.of(index, positions, probabilities, classes=card.classes, errors=part.errors))
        unreadable += len(part.errors)
        if place.stop():
            raise Interrupted("stopped between two batches; the next try starts over")
        place.report(Progress(fraction=0.99 * done / total, message=f"{done} of {total} images"))
    return predicted, unreadable


def _are_readable(part: Part) -> np.ndarray:
    """(n,) whether each image of a part could be read."""
    return np.array([part.start + n not in part.errors for n in range(len(part.pixels))], dtype=bool)


def _readable(parts: Iterator[Part]) -> Iterator[tuple[Part, tuple[Tensor, ...]]]:
    """Each part with its readable images."""
    for part in parts:
        yield part, (torch.from_numpy(part.pixels[_are_readable(part)]),)
