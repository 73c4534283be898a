"""Batch inference: a trained model applied to every image of a data set."""

from pathlib import Path
from typing import Any

import numpy as np

from bgpanet.bundles import load_bundle
from bgpanet.compute import choose_compute
from bgpanet.data.pixels import open_pixels
from bgpanet.errors import Interrupted
from bgpanet.evaluation.predictions import PredictionTable
from bgpanet.events import Log, Progress, Result
from bgpanet.experiment import Workplace, read_data
from bgpanet.inference import softmax
from bgpanet.specs import PredictSpec
from bgpanet.training.distributed import infer_together


def predict(spec: PredictSpec, place: Workplace) -> dict[str, Any]:
    """Writes `predictions.csv` and `predictions.parquet`, a row for each image in the data set's order; an unreadable
    image is a row with its error and no probabilities. Returns the summary, which is also reported as `Result`;
    processes that do not lead return {}.

    Raises:
        InvalidInput, OutOfMemory, Interrupted.
    """
    model, card = load_bundle(Path(spec.model))
    index = read_data(spec)
    with place.processes.first_alone():
        pixels = open_pixels(index, card.image_size, place.cache, progress=place.decoding)
    compute = choose_compute(spec.precision, place.threads, place.processes.count)
    compute.activate()
    if card.synthetic and not index.synthetic:
        place.report(Log(level="warning", message="the model was trained on drawn images: its answers mean nothing"))
    readable = np.array([n for n in range(len(index.records)) if n not in pixels.errors], dtype=np.int64)

    def progress(done: int) -> None:
        if place.stop():
            raise Interrupted("stopped between two batches; the next try starts over")
        place.report(Progress(fraction=0.99 * done / len(readable), message=f"{done} of {len(readable)} images"))

    model = model.to(compute.device)
    logits = infer_together(place.processes, model, pixels.pixels, readable, spec.batch_size, compute, progress)
    if not place.processes.leads:
        return {}
    probabilities = np.full((len(index.records), len(card.classes)), np.nan)
    if len(readable):
        probabilities[readable] = softmax(logits)
    everything = np.arange(len(index.records))
    table = PredictionTable.of(index, everything, probabilities, classes=card.classes, errors=pixels.errors)
    place.output.mkdir(parents=True, exist_ok=True)
    csv, parquet = place.output / "predictions.csv", place.output / "predictions.parquet"
    table.write(csv, parquet)
    for path in (csv, parquet):
        place.hand_in(path)
    chosen = probabilities[readable].argmax(axis=1) if len(readable) else np.zeros(0, dtype=np.int64)
    summary = {
        "images": len(index.records),
        "predicted": {name: int((chosen == label).sum()) for label, name in enumerate(card.classes)},
        "unreadable": len(pixels.errors),
        "synthetic": index.synthetic or card.synthetic,
    }
    place.report(Result(summary=summary))
    return summary
