"""A trained model as ONNX, from pixels to probabilities, and how far its answers are from the net's own.

The graph takes `pixels`, uint8 (B, H, W, 3), RGB, of the model's own size, and gives `probabilities`, float32 (B, K),
in the order of the card's classes; of several models that answer together their mean. Everything between is inside.
"""

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bgpanet.bundles import ModelCard
from bgpanet.compute import Compute
from bgpanet.data.augmentation import DEVIATION, MEAN
from bgpanet.ensemble import Ensemble, answers, load_models
from bgpanet.errors import Interrupted, NotTheSame
from bgpanet.events import Progress, Result
from bgpanet.experiment import Workplace
from bgpanet.inference import infer_batches
from bgpanet.provenance import environment
from bgpanet.specs import ExportSpec

ONNX, COMPARISON = "model.onnx", "onnx.json"
OPSET = 18
MOST_AT_ONCE = 4096  # images
COMPARED = (1, 5, 8)  # images of each batch: the graph takes any number
SEED = 0x0177


class Answering(nn.Module):
    """Pixels (B, H, W, 3) uint8 to probabilities (B, K): what `normalise`, the members and `answers` come to."""

    def __init__(self, members: Ensemble) -> None:
        super().__init__()
        self.members = members
        self.mean: Tensor
        self.deviation: Tensor
        self.register_buffer("mean", torch.tensor(MEAN), persistent=False)
        self.register_buffer("deviation", torch.tensor(DEVIATION), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        images = ((pixels.float() / 255 - self.mean) / self.deviation).permute(0, 3, 1, 2)
        answers: Tensor = self.members(images)
        return answers.softmax(dim=-1).mean(dim=1)


def export(spec: ExportSpec, place: Workplace) -> dict[str, Any]:
    """Writes `model.onnx` and `onnx.json`. Returns the summary, which is also reported as `Result`.

    The file is read again and run by onnxruntime; its answers are compared with those of the net as `predict` computes
    them in fp32, on images of several kinds, in batches of several sizes.

    Raises:
        InvalidInput: the model can't be read.
        NotTheSame: a probability differs by more than the spec's bound; nothing is handed in.
        Interrupted.
    """
    compute = Compute(torch.device("cpu"), "fp32", place.threads or 1)
    compute.activate()
    members, cards = load_models(Path(spec.model))
    card = cards[0]
    place.output.mkdir(parents=True, exist_ok=True)
    path = place.output / ONNX
    place.report(Progress(fraction=0.1, message="writing the graph"))
    write_onnx(members, card, path)
    if place.stop():
        raise Interrupted("stopped before the comparison; the next try starts over")
    place.report(Progress(fraction=0.7, message="comparing its answers with the net's own"))
    farthest, images = compare(path, members, card, compute)
    told = f"the farthest of {images * len(card.classes)} probabilities differs by {farthest:.2g}"
    if not farthest <= spec.bound:
        raise NotTheSame(f"{told}, more than the bound {spec.bound:.2g}; the file was not kept")
    summary = {
        "format": "onnx",
        "opset": OPSET,
        "input": {"name": "pixels", "type": "uint8", "shape": ["B", card.image_size, card.image_size, 3]},
        "output": {"name": "probabilities", "type": "float32", "shape": ["B", len(card.classes)]},
        "classes": list(card.classes),
        "members": len(cards),
        "synthetic": any(card.synthetic for card in cards),
        "largest_difference": farthest,
        "bound": spec.bound,
        "images_compared": images,
    }
    report = place.output / COMPARISON
    details = {**summary, "environment": environment(), "model": card.model_dump(mode="json")}
    report.write_text(json.dumps(details, indent=2, allow_nan=False), encoding="utf-8")
    place.hand_in(path)
    place.hand_in(report)
    place.report(Result(summary=summary))
    return summary


def write_onnx(members: Ensemble, card: ModelCard, path: Path) -> None:
    """Writes the graph, weights inside, for batches of any size."""
    whole = Answering(members).eval()
    # Two images: a batch of one would be taken for a size that never changes.
    example = torch.zeros(2, card.image_size, card.image_size, 3, dtype=torch.uint8)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of the exporter's own parts
        # Strictly: the looser way takes the batch's size in shifted windows for a constant.
        sizes = ({0: torch.export.Dim("batch", min=1, max=MOST_AT_ONCE)},)
        program = torch.export.export(whole, (example,), dynamic_shapes=sizes, strict=True)
        torch.onnx.export(
            program,
            (),
            path,
            input_names=["pixels"],
            output_names=["probabilities"],
            opset_version=OPSET,
            external_data=False,
            dynamo=True,
            verbose=False,
        )


def compare(path: Path, members: Ensemble, card: ModelCard, compute: Compute) -> tuple[float, int]:
    """The largest difference between a probability of the file's and one of the net's, and over how many images; NaN
    where one of them is no number."""
    from onnxruntime import InferenceSession, SessionOptions  # seconds

    options = SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = compute.threads, 3
    session = InferenceSession(path, options, providers=["CPUExecutionProvider"])
    generator = np.random.default_rng(SEED)
    farthest = 0.0
    for count in COMPARED:
        pixels = images_of(generator, count, card.image_size)
        (found,) = session.run(["probabilities"], {"pixels": pixels})
        ((_, logits),) = infer_batches(members, [(None, torch.from_numpy(pixels))], compute)
        expected, _ = answers(logits)
        # Unlike max(), which loses a NaN.
        farthest = float(np.maximum(farthest, np.abs(found - expected).max()))
    return farthest, sum(COMPARED)


def images_of(generator: np.random.Generator, count: int, size: int) -> np.ndarray:
    """(count, size, size, 3) uint8: in turn noise, smooth spots on a ground, and one flat colour."""
    rows, columns = np.mgrid[0:size, 0:size] / size
    made = np.empty((count, size, size, 3), dtype=np.uint8)
    for number in range(count):
        ground, spot = generator.integers(0, 256, (2, 3))
        if number % 3 == 0:
            made[number] = generator.integers(0, 256, (size, size, 3))
        elif number % 3 == 1:
            y, x, width = generator.uniform(0.2, 0.8, 3)
            near = np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (0.1 * width))[..., None]
            made[number] = (near * spot + (1 - near) * ground).round()
        else:
            made[number] = ground
    return made
