"""Explaining: what a trained model looked at, as one picture an image and the numbers of all."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bgpanet.bundles import ModelCard, load_bundle
from bgpanet.compute import choose_compute, out_of_memory
from bgpanet.data.augmentation import normalise
from bgpanet.data.index import Index
from bgpanet.data.pixels import PixelCache, decode, open_pixels
from bgpanet.errors import Interrupted, InvalidInput, Problem
from bgpanet.events import Log, Progress, Result
from bgpanet.experiment import Workplace, read_data
from bgpanet.explanation.attention import BlockView, joined, last_of_stages, map_numbers, numbers, views
from bgpanet.explanation.cam import grad_cam, target_of
from bgpanet.explanation.overlay import overlay, png
from bgpanet.explanation.panel import TILE, Tile, map_tile, panel
from bgpanet.explanation.sanity import parts_of, weight_randomisation
from bgpanet.inference import infer_logits, softmax
from bgpanet.models import BGPANet, build_model
from bgpanet.specs import ExplainSpec

NUMBERS = "explanations.json"
RANDOMISED = 8
"""Images on which weights are made random; more cost time and tell little more."""
UNLIKE_ANY_TRAINING = 0xB6FA2E7
"""Added to the seed of the random weights."""


@dataclass(frozen=True)
class _Subject:
    """What is explained, of what, and where it goes. `methods` are those that the model has."""

    spec: ExplainSpec
    place: Workplace
    model: nn.Module
    card: ModelCard
    methods: list[str]
    index: Index
    pixels: PixelCache

    def cams(self, model: nn.Module, images: Tensor, classes: np.ndarray) -> np.ndarray:
        """Grad-CAM of the model, or of one like it: (B, H, W); `batch_size` images pass the device at once."""
        parts = []
        for start in range(0, len(images), self.spec.batch_size):
            part = slice(start, start + self.spec.batch_size)
            with out_of_memory(len(images[part])):
                parts.append(
                    grad_cam(model, self.card.model.name, images[part], classes[part].tolist(), self.spec.stage)
                )
        return np.concatenate(parts)


def explain(spec: ExplainSpec, place: Workplace) -> dict[str, Any]:
    """Writes `explained-<image id>.png` for each image and `explanations.json`. Returns the summary, which is also
    reported as `Result`.

    Grad-CAM is of the predicted class, or of the one asked for, and comes with what it is worth: how alike maps are
    after weights were made random (`bgpanet.explanation.sanity`).

    Raises:
        InvalidInput, OutOfMemory, Interrupted.
    """
    compute = choose_compute("fp32", place.threads)
    compute.activate()
    subject = _subject(spec, place, compute.device)
    positions = _chosen(spec, subject.index, subject.pixels)
    probabilities = softmax(infer_logits(subject.model, subject.pixels.pixels, positions, spec.batch_size, compute))
    classes = probabilities.argmax(axis=1)
    if spec.explained is not None:
        classes = np.full(len(positions), subject.card.classes.index(spec.explained))
    place.output.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    batches: list[list[BlockView]] = []
    for start in range(0, len(positions), spec.batch_size):
        if place.stop():
            raise Interrupted("stopped between two batches; the next try starts over")
        part = slice(start, start + spec.batch_size)
        more, blocks = _explain(subject, positions[part], probabilities[part], classes[part])
        rows += more
        batches.append(blocks)
        place.report(Progress(fraction=0.9 * len(rows) / len(positions), message=f"{len(rows)} images explained"))
    randomised = None
    if "grad_cam" in subject.methods:
        randomised = _randomised(subject, positions[:RANDOMISED], classes[:RANDOMISED])
    return _conclude(subject, rows, numbers(joined(batches)), randomised)


def _subject(spec: ExplainSpec, place: Workplace, device: torch.device) -> _Subject:
    model, card = load_bundle(Path(spec.model))
    methods = _methods(spec, model, card)
    index = read_data(spec)
    if card.synthetic and not index.synthetic:
        place.report(Log(level="warning", message="the model was trained on drawn images: its answers mean nothing"))
    pixels = open_pixels(index, card.image_size, place.cache, progress=place.decoding, limit=place.cache_limit)
    return _Subject(spec, place, model.to(device).eval(), card, methods, index, pixels)


def _methods(spec: ExplainSpec, model: nn.Module, card: ModelCard) -> list[str]:
    """What is asked for, or all that the model has. Everything that it has not is told."""
    branches = {"all": ("spatial", "received"), "cpa_sar": ("spatial",), "cpa": ()}
    has = ["grad_cam"]
    if isinstance(model, BGPANet):
        has += branches[card.model.branches or "all"]
    problems = [
        Problem("methods", f"{card.model.name} has no {method}; it has {', '.join(has)}")
        for method in spec.methods or ()
        if method not in has
    ]
    if spec.explained is not None and spec.explained not in card.classes:
        problems.append(Problem("explained", f"{spec.explained!r} is none of {', '.join(card.classes)}"))
    try:
        target_of(model, card.model.name, spec.stage)
    except InvalidInput as error:
        problems += error.problems
    if problems:
        raise InvalidInput(problems)
    return list(spec.methods or has)


def _chosen(spec: ExplainSpec, index: Index, pixels: PixelCache) -> np.ndarray:
    """Positions of the images that are asked for, in that order, or drawn, in the order of the index."""
    if spec.images is None:
        readable = np.array([n for n in range(len(index.records)) if n not in pixels.errors], dtype=np.int64)
        if len(readable) == 0:
            raise InvalidInput.one("data", "has no image that can be read")
        order = np.random.default_rng(spec.seed).permutation(readable)
        return np.sort(order[: spec.count])
    position = {record.image_id: n for n, record in enumerate(index.records)}
    problems = [
        Problem("images", f"{name!r} is not in the data set")
        if name not in position
        else Problem("images", f"{name!r} can't be read: {pixels.errors[position[name]]}")
        for name in spec.images
        if position.get(name) is None or position[name] in pixels.errors
    ]
    if problems:
        raise InvalidInput(problems)
    return np.array([position[name] for name in spec.images], dtype=np.int64)


def _normalised(pixels: PixelCache, positions: np.ndarray) -> Tensor:
    return normalise(torch.from_numpy(np.ascontiguousarray(pixels.pixels[positions])))


def _of_image(view: BlockView, n: int) -> BlockView:
    one = slice(n, n + 1)
    spatial = None if view.spatial is None else view.spatial[one]
    received = None if view.received is None else view.received[one]
    return replace(view, prior=view.prior[one], spatial=spatial, received=received)


def _explain(
    subject: _Subject, positions: np.ndarray, probabilities: np.ndarray, classes: np.ndarray
) -> tuple[list[dict[str, Any]], list[BlockView]]:
    """Draws each image of a batch. Returns what is told of each, and what the blocks looked at in all of them."""
    images = _normalised(subject.pixels, positions)
    with out_of_memory(len(images)):
        blocks = views(subject.model, images) if isinstance(subject.model, BGPANet) else []
    cams = subject.cams(subject.model, images, classes) if "grad_cam" in subject.methods else None
    rows = []
    for n, position in enumerate(positions):
        record, names = subject.index.records[position], subject.card.classes
        own = [_of_image(view, n) for view in blocks]
        row = {
            "image_id": record.image_id,
            "truth": None if record.label is None else subject.index.classes[record.label],
            "predicted": names[int(probabilities[n].argmax())],
            "probabilities": dict(zip(names, probabilities[n].tolist(), strict=True)),
            "explained": names[int(classes[n])],
            "grad_cam_is_empty": None if cams is None else not cams[n].any(),
            "file": f"explained-{record.image_id}.png",
            "blocks": [_numbers_of_image(view) for view in own],
        }
        path = subject.place.output / f"explained-{record.image_id}.png"
        picture = decode(record.read_bytes(), TILE)
        path.write_bytes(png(_drawn(row, picture, subject.methods, None if cams is None else cams[n], own)))
        subject.place.hand_in(path)
        rows.append(row)
    return rows, blocks


def _numbers_of_image(view: BlockView) -> dict[str, Any]:
    return {
        "stage": view.stage,
        "block": view.block,
        "prior": {"mean": float(view.prior.mean()), "sd_channels": float(view.prior.std())},
        "spatial": map_numbers(view.spatial),
        "received": map_numbers(view.received),
    }


def _drawn(
    row: Mapping[str, Any], picture: np.ndarray, methods: list[str], cam: np.ndarray | None, blocks: list[BlockView]
) -> np.ndarray:
    """The input and Grad-CAM; beside them each stage's last block: M_s above, what positions receive below."""
    truth = f", labelled {row['truth']}" if row["truth"] else ""
    columns = [[Tile(f"input{truth}", picture)]]
    if cam is not None:
        empty = ": nothing speaks for it" if row["grad_cam_is_empty"] else ""
        caption = f"Grad-CAM, {row['explained']}, p = {row['probabilities'][row['explained']]:.2f}{empty}"
        columns[0].append(Tile(caption, overlay(picture, cam)))
    for view in last_of_stages(blocks):
        column = []
        if view.spatial is not None and "spatial" in methods:
            column.append(map_tile(f"stage {view.stage}: M_s", picture, view.spatial[0]))
        if view.received is not None and "received" in methods:
            column.append(map_tile(f"stage {view.stage}: attention received", picture, view.received[0]))
        if column:
            columns.append(column)
    return panel(columns)


def _randomised(subject: _Subject, positions: np.ndarray, classes: np.ndarray) -> dict[str, Any]:
    """Of each part that is made random: the mean rank correlation of Grad-CAM before and after, over `images`; `flat`
    are more, in which a map is the same everywhere, mostly because nothing speaks for the class any more."""
    model, images = subject.card.model, _normalised(subject.pixels, positions)
    with torch.random.fork_rng():
        # From a training's own seed would come the very weights that it began with.
        torch.manual_seed((subject.spec.seed + UNLIKE_ANY_TRAINING) % 2**32)
        fresh = build_model(model.name, len(subject.card.classes), **model.options)
    found = {}
    for part, beginnings in parts_of(model.name).items():
        alike = weight_randomisation(subject.model, fresh, beginnings, lambda net: subject.cams(net, images, classes))
        values = [value for value in alike if value is not None]
        mean = float(np.mean(values)) if values else None
        found[part] = {"mean": mean, "images": len(values), "flat": len(images) - len(values)}
    return found


def _conclude(
    subject: _Subject, rows: list[dict[str, Any]], blocks: list[dict[str, Any]], randomised: dict[str, Any] | None
) -> dict[str, Any]:
    spec, card, index = subject.spec, subject.card, subject.index
    summary = {
        "images": len(rows),
        "methods": subject.methods,
        "explained": spec.explained or "the predicted class",
        "fusion": [{name: block[name] for name in ("stage", "block", "scale", "fusion")} for block in blocks],
        "randomised": randomised,
        "unreadable": len(subject.pixels.errors),
        "synthetic": index.synthetic or card.synthetic,
    }
    has_cam = "grad_cam" in subject.methods
    whole = {
        **summary,
        "kind": "explain",
        "spec": spec.model_dump(mode="json", exclude={"data", "resources", "model"}),
        "dataset_digest": index.digest,
        "model": card.model_dump(mode="json"),
        "target_layer": target_of(subject.model, card.model.name, spec.stage).layer if has_cam else None,
        "blocks": blocks,
        "each": rows,
    }
    path = subject.place.output / NUMBERS
    path.write_text(json.dumps(whole, indent=2, allow_nan=False), encoding="utf-8")
    subject.place.hand_in(path)
    subject.place.report(Result(summary=summary))
    return summary
