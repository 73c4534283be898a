"""Explaining: what a trained model looked at, as one picture an image and the numbers of all."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bgpanet.bundles import ModelCard, load_bundle
from bgpanet.compute import Compute, choose_compute, out_of_memory
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


def explain(spec: ExplainSpec, place: Workplace) -> dict[str, Any]:
    """Writes `explained-<image id>.png` for each image and `explanations.json`. Returns the summary, which is also
    reported as `Result`.

    Grad-CAM is of the predicted class, or of the one asked for, and comes with what it is worth: how alike maps are
    after weights were made random (`bgpanet.explanation.sanity`).

    Raises:
        InvalidInput, OutOfMemory, Interrupted.
    """
    model, card = load_bundle(Path(spec.model))
    methods = _methods(spec, model, card)
    index = read_data(spec)
    pixels = open_pixels(index, card.image_size, place.cache, progress=place.decoding, limit=place.cache_limit)
    positions = _chosen(spec, index, pixels)
    compute = choose_compute("fp32", place.threads)
    compute.activate()
    if card.synthetic and not index.synthetic:
        place.report(Log(level="warning", message="the model was trained on drawn images: its answers mean nothing"))
    model = model.to(compute.device).eval()
    probabilities = softmax(infer_logits(model, pixels.pixels, positions, spec.batch_size, compute))
    classes = probabilities.argmax(axis=1)
    if spec.explained is not None:
        classes = np.full(len(positions), card.classes.index(spec.explained))
    place.output.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    blocks: list[list[BlockView]] = []
    for start in range(0, len(positions), spec.batch_size):
        if place.stop():
            raise Interrupted("stopped between two batches; the next try starts over")
        part = slice(start, start + spec.batch_size)
        images = _normalised(pixels, positions[part])
        with out_of_memory(len(images)):
            found = views(model, images) if isinstance(model, BGPANet) else []
            cams = None
            if "grad_cam" in methods:
                cams = grad_cam(model, card.model.name, images, classes[part].tolist(), spec.stage)
        blocks.append(found)
        for n, position in enumerate(positions[part]):
            one = [_of_image(view, n) for view in found]
            row = _row(index, int(position), card, probabilities[start + n], int(classes[start + n]), one)
            cam = None if cams is None else cams[n]
            if cam is not None:
                row["grad_cam_is_empty"] = not cam.any()
            _draw(place, index, int(position), row, methods, cam, one)
            rows.append(row)
        place.report(Progress(fraction=0.9 * len(rows) / len(positions), message=f"{len(rows)} images explained"))
    few = positions[:RANDOMISED]
    randomised = None
    if "grad_cam" in methods:
        randomised = _randomised(spec, model, card, _normalised(pixels, few), classes[: len(few)], compute)
    summary = {
        "images": len(rows),
        "methods": methods,
        "explained": spec.explained or "the predicted class",
        "fusion": [{k: block[k] for k in ("stage", "block", "scale", "fusion")} for block in numbers(joined(blocks))],
        "randomised": randomised,
        "unreadable": len(pixels.errors),
        "synthetic": index.synthetic or card.synthetic,
    }
    whole = {
        **summary,
        "kind": "explain",
        "spec": spec.model_dump(mode="json", exclude={"data", "resources", "model"}),
        "dataset_digest": index.digest,
        "card": card.model_dump(mode="json"),
        "target_layer": target_of(model, card.model.name, spec.stage).layer if "grad_cam" in methods else None,
        "blocks": numbers(joined(blocks)),
        "each": rows,
    }
    path = place.output / NUMBERS
    path.write_text(json.dumps(whole, indent=2, allow_nan=False), encoding="utf-8")
    place.hand_in(path)
    place.report(Result(summary=summary))
    return summary


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
    return BlockView(view.stage, view.block, view.prior[one], spatial, received, view.fusion, view.scale)


def _row(
    index: Index, position: int, card: ModelCard, probabilities: np.ndarray, explained: int, blocks: list[BlockView]
) -> dict[str, Any]:
    record = index.records[position]
    return {
        "image_id": record.image_id,
        "truth": None if record.label is None else index.classes[record.label],
        "predicted": card.classes[int(probabilities.argmax())],
        "probabilities": dict(zip(card.classes, probabilities.tolist(), strict=True)),
        "explained": card.classes[explained],
        "file": f"explained-{record.image_id}.png",
        "blocks": [
            {
                "stage": view.stage,
                "block": view.block,
                "prior": {"mean": float(view.prior.mean()), "sd_channels": float(view.prior.std())},
                "spatial": map_numbers(view.spatial),
                "received": map_numbers(view.received),
            }
            for view in blocks
        ],
    }


def _draw(
    place: Workplace,
    index: Index,
    position: int,
    row: dict[str, Any],
    methods: list[str],
    cam: np.ndarray | None,
    blocks: list[BlockView],
) -> None:
    """The input and Grad-CAM; beside them each stage's last block: M_s above, what positions receive below."""
    picture = decode(index.records[position].read_bytes(), TILE)
    truth = f", labelled {row['truth']}" if row["truth"] else ""
    columns = [[Tile(f"input{truth}", picture)]]
    if cam is not None:
        p = row["probabilities"][row["explained"]]
        empty = ": nothing speaks for it" if row["grad_cam_is_empty"] else ""
        columns[0].append(Tile(f"Grad-CAM, {row['explained']}, p = {p:.2f}{empty}", overlay(picture, cam)))
    for view in last_of_stages(blocks):
        column = []
        if view.spatial is not None and "spatial" in methods:
            column.append(map_tile(f"stage {view.stage}: M_s", picture, view.spatial[0]))
        if view.received is not None and "received" in methods:
            column.append(map_tile(f"stage {view.stage}: attention received", picture, view.received[0]))
        if column:
            columns.append(column)
    path = place.output / row["file"]
    path.write_bytes(png(panel(columns)))
    place.hand_in(path)


def _randomised(
    spec: ExplainSpec, model: nn.Module, card: ModelCard, images: Tensor, classes: np.ndarray, compute: Compute
) -> dict[str, Any]:
    """Of each part that is made random: the mean rank correlation of Grad-CAM before and after, over `images`; `flat`
    are more, in which a map is the same everywhere, mostly because nothing speaks for the class any more."""
    with torch.random.fork_rng():
        # From a training's own seed would come the very weights that it began with.
        torch.manual_seed((spec.seed + UNLIKE_ANY_TRAINING) % 2**32)
        fresh = build_model(card.model.name, len(card.classes), **card.model.options).to(compute.device)

    def cams(net: nn.Module) -> np.ndarray:
        return grad_cam(net, card.model.name, images, classes.tolist(), spec.stage)

    found = {}
    for part, beginnings in parts_of(card.model.name).items():
        values = [v for v in weight_randomisation(model, fresh, beginnings, cams) if v is not None]
        mean = float(np.mean(values)) if values else None
        found[part] = {"mean": mean, "images": len(values), "flat": len(images) - len(values)}
    return found
