"""P8: the slowest stage of batch inference over all of it, end to end, from encoded images to written predictions."""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from benchmarks.real_images import MISSING, index_of, originals, real_images
from benchmarks.timing import Ratio, compare
from bgpanet.bundles import ModelCard
from bgpanet.compute import choose_compute
from bgpanet.data.pixels import open_pixels
from bgpanet.ensemble import Ensemble
from bgpanet.evaluation.predictions import PredictionTable, PredictionWriter
from bgpanet.experiment import Workplace
from bgpanet.inference import infer_logits, softmax
from bgpanet.models import build_model
from bgpanet.prediction import answer
from bgpanet.specs import ModelSpec

SIZE = 224


def measure() -> Iterator[tuple[str, Ratio | str]]:
    """(goal, what was measured or why it could not be)."""
    folder = real_images()
    if folder is None:
        yield "P8", MISSING
        return
    on_cpu = choose_compute("auto").device.type == "cpu"
    for name, images in (("bgpanet", 64), ("bgpanet_micro", 512)) if on_cpu else (("bgpanet", 10_000),):
        yield f"P8, {name}", _measured(name, images, folder)


def _measured(name: str, images: int, folder: Path) -> Ratio:
    compute = choose_compute("auto")
    batch = 8 if compute.device.type == "cpu" else 128
    index = index_of(originals(folder), images)
    model = build_model(name, len(index.classes)).to(compute.device)
    models = Ensemble([model])
    card = ModelCard(
        model=ModelSpec(name=name), classes=index.classes, image_size=SIZE, dataset_digest="", split_digest="",
        synthetic=False, kept={},
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as text:
        home = Path(text)
        files = home / "predictions.csv", home / "predictions.parquet"
        pixels = open_pixels(index, SIZE, home / "warm").pixels
        everything = np.arange(images)
        logits = infer_logits(model, pixels, everything, batch, compute)

        def decode() -> None:
            shutil.rmtree(home / "cold", ignore_errors=True)
            open_pixels(index, SIZE, home / "cold")

        def end_to_end() -> None:
            shutil.rmtree(home / "cold", ignore_errors=True)
            place = Workplace(home, home / "cold", lambda event: None)
            with PredictionWriter(*files) as writer:
                for table in answer(models, card, index, batch, compute, place):
                    writer.append(table)

        stages: dict[str, Callable[[], object]] = {
            "reading": lambda: [record.read_bytes() for record in index.records],
            "reading, decoding and keeping": decode,
            "the network": lambda: infer_logits(model, pixels, everything, batch, compute),
            "writing": lambda: PredictionTable.of(index, everything, softmax(logits)).write(*files),
        }
        slowest = max(stages, key=lambda stage: _seconds(stages[stage]))
        return compare(
            f"{slowest} alone, {images} images, {name}", stages[slowest],
            "all of it, from encoded images to written predictions", end_to_end,
        )  # fmt: skip


def _seconds(run: Callable[[], object]) -> float:
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun
