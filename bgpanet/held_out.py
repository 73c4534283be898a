"""Figures of a trained model on images that had no part in its training: another data set, or a locked part of its own.

    evaluate_model:  read → refuse what the model has seen → predict → evaluate with what was frozen → write

Nothing is fitted here: temperature and thresholds are those that the training froze on its validation part.
"""

import json
from collections.abc import Sequence, Set
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from bgpanet.bundles import load_bundle
from bgpanet.compute import choose_compute
from bgpanet.data.index import Index
from bgpanet.data.pixels import open_pixels
from bgpanet.data.splits import Leakage
from bgpanet.errors import Interrupted, InvalidInput
from bgpanet.evaluation.predictions import PredictionTable
from bgpanet.evaluation.summary import evaluate
from bgpanet.events import Log, Progress, Result
from bgpanet.experiment import SPLIT, Workplace, read_data, write_results
from bgpanet.inference import infer_logits, softmax
from bgpanet.provenance import environment
from bgpanet.specs import EvaluateSpec

NAMED = 5  # ids that a message shows


def evaluate_model(spec: EvaluateSpec, place: Workplace) -> dict[str, Any]:
    """Returns the summary, which is also reported as `Result`. Writes `report.json` and the tables of predictions.

    The classes of the data must be among the model's; an image without a label is left out and counted.

    Raises:
        InvalidInput: an image of the data was trained or validated with, classes do not fit, no labels, or the model
            is of a version that did not record what it has seen.
        OutOfMemory, Interrupted.
    """
    folder = Path(spec.model)
    model, card = load_bundle(folder)
    index = read_data(spec, spec.part)
    labels = _labels(index, card.classes)
    seen = _seen(folder)
    _refuse_seen(index, {sha256 for sha256, _ in seen})
    if card.frozen is None:
        raise InvalidInput.one("model", "did not keep its temperature and thresholds; train it anew")
    pixels = open_pixels(index, card.image_size, place.cache, progress=place.decoding, limit=place.cache_limit)
    compute = choose_compute(spec.precision, place.threads)
    compute.activate()
    if card.synthetic and not index.synthetic:
        place.report(Log(level="warning", message="the model was trained on drawn images: its answers mean nothing"))
    usable = np.array([n for n, label in enumerate(labels) if label >= 0 and n not in pixels.errors], dtype=np.int64)
    if not len(usable):
        raise InvalidInput.one("data", "has no image that is both labelled and readable")

    def progress(done: int) -> None:
        if place.stop():
            raise Interrupted("stopped between two batches; the next try starts over")
        place.report(Progress(fraction=0.9 * done / len(usable), message=f"{done} of {len(usable)} images"))

    leaking = _leakage(index.groups[usable], {group for _, group in seen})
    if leaking.groups:
        told = (
            f"{leaking.groups} {index.group_unit}s have names that occur in the model's training: if they are the same"
        )
        place.report(Log(level="warning", message=f"{told}, these figures leak; if not, their names are a coincidence"))
    logits = infer_logits(model.to(compute.device), pixels.pixels, usable, spec.batch_size, compute, progress)
    probabilities = softmax(logits)
    summary = {
        **evaluate(
            labels[usable],
            probabilities,
            index.groups[usable].tolist(),
            [index.records[n].attributes for n in usable],
            card.frozen.temperature,
            card.frozen.thresholds,
            card.classes,
        ),
        "classes": list(card.classes),
        "part": spec.part,
        "leakage": asdict(leaking),
        "images": len(usable),
        "groups": len(set(index.groups[usable].tolist())),
        "unlabelled": int((labels < 0).sum()),
        "unreadable": len(pixels.errors),
        "synthetic": index.synthetic or card.synthetic,
    }
    details = {
        "kind": "evaluate",
        "spec": spec.model_dump(mode="json", exclude={"data", "resources", "model"}),
        "model": card.model_dump(mode="json"),
        "dataset_digest": index.digest,
        "environment": {**environment(), **compute.describe()},
    }
    table = PredictionTable.of(index, usable, probabilities, classes=card.classes)
    write_results(place, {**summary, **details}, table)
    place.report(Result(summary=summary))
    return summary


def _labels(index: Index, classes: Sequence[str]) -> np.ndarray:
    """(N,) positions among the model's classes, -1 where unknown. Raises InvalidInput where a class is none of them."""
    position = {name: number for number, name in enumerate(classes)}
    found = sorted({record.label for record in index.records if record.label is not None})
    if strange := [index.classes[label] for label in found if index.classes[label] not in position]:
        told = f"has classes that the model does not know: {', '.join(strange)}; it knows {', '.join(classes)}"
        raise InvalidInput.one("data", told)
    return np.array(
        [-1 if r.label is None else position[index.classes[r.label]] for r in index.records], dtype=np.int64
    )


def _seen(folder: Path) -> list[tuple[str, str]]:
    """(sha256, group) of every image that the model was trained or validated with. Raises InvalidInput."""
    try:
        parts = json.loads((folder / SPLIT).read_text(encoding="utf-8"))["parts"]
        return [(sha256, group) for name in ("train", "validation") for _, sha256, group in parts[name]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidInput.one("model", f"lacks a readable {SPLIT}, so what it has seen is unknown: {error}") from None


def _refuse_seen(index: Index, contents: Set[str]) -> None:
    """Raises InvalidInput where images had part in the training, whatever they are called here."""
    found = [record.image_id for record in index.records if record.sha256 in contents]
    if found:
        named = f"{', '.join(found[:NAMED])}{', …' if len(found) > NAMED else ''}"
        told = (
            f"{len(found)} images had part in the model's training, so figures on them would estimate nothing: {named}"
        )
        raise InvalidInput.one("data", told)


def _leakage(groups: np.ndarray, seen: Set[str]) -> Leakage:
    """By the names of lesions or patients: another data set may use the same for others, which only people can tell."""
    shared = np.isin(groups, list(seen))
    return Leakage(len(set(groups[shared].tolist())), int(shared.sum()), float(shared.mean()))
