"""P5 and P6: steps on real images over steps on one fixed tensor, and what handing over a batch costs a CPU."""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from benchmarks.real_images import MISSING, index_of, originals, real_images
from benchmarks.timing import Ratio, compare
from bgpanet.compute import choose_compute
from bgpanet.data.augmentation import DEVIATION, MEAN, augment, normalise
from bgpanet.data.batches import batches
from bgpanet.data.pixels import PixelCache, open_pixels
from bgpanet.losses import DualTailedLoss
from bgpanet.models import build_model
from bgpanet.specs import AugmentationSpec

SIZE = 224


def measure() -> Iterator[tuple[str, Ratio | str]]:
    """(goal, what was measured or why it could not be)."""
    folder = real_images()
    if folder is None:
        yield "P5", MISSING
        yield "P6", MISSING
        return
    paths = originals(folder)
    with tempfile.TemporaryDirectory() as name:
        pixels = open_pixels(index_of(paths, len(paths)), SIZE, Path(name))
        yield "P6", _handing_over(pixels, paths)
        for model in ("bgpanet", "bgpanet_micro"):
            yield f"P5, {model}", _steps(model, pixels)


def _handing_over(pixels: PixelCache, paths: list[Path]) -> Ratio:
    device, labels = choose_compute("auto").device, np.zeros(len(paths), dtype=np.int64)
    order = np.random.default_rng(0).permutation(len(paths))
    loader = DataLoader(_Decoded(paths), batch_size=32)

    def ours() -> None:
        for _ in batches(pixels.pixels, labels, order, 32, device=device):
            pass

    def theirs() -> None:
        for images in loader:
            images.to(device)

    return compare(
        f"CPU seconds to hand a {device.type} {len(paths)} images at {SIZE} out of the warm cache, not augmented", ours,
        "of a DataLoader that decodes, augments and collates", theirs, clock=time.process_time,
    )  # fmt: skip


class _Decoded(Dataset[torch.Tensor]):
    """As torchvision's users do it."""

    def __init__(self, paths: list[Path]) -> None:
        spec = AugmentationSpec()
        self.paths = paths
        self.transform = v2.Compose(
            [
                v2.Resize((SIZE, SIZE)),
                v2.RandomHorizontalFlip(spec.horizontal_flip),
                v2.RandomVerticalFlip(spec.vertical_flip),
                v2.ColorJitter(spec.brightness, spec.contrast, spec.saturation, spec.hue),
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(MEAN, DEVIATION),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, position: int) -> torch.Tensor:
        made: torch.Tensor = self.transform(Image.open(self.paths[position]).convert("RGB"))
        return made


def _steps(name: str, pixels: PixelCache) -> Ratio:
    compute = choose_compute("auto")
    batch, steps = (128, 20) if compute.device.type == "cuda" else (4, 2) if name == "bgpanet" else (16, 3)
    model = build_model(name, 7).to(compute.device).to(memory_format=torch.channels_last)
    optimizer, loss = torch.optim.AdamW(model.parameters(), lr=1e-4), DualTailedLoss(1000).to(compute.device)
    count = len(pixels.pixels)
    order, labels = np.arange(batch * steps) % count, np.arange(count) % 7
    fixed = normalise(torch.from_numpy(pixels.pixels[order[:batch]]).to(compute.device))
    fixed_labels = torch.from_numpy(labels[order[:batch]]).to(compute.device)

    def step(images: torch.Tensor, of_them: torch.Tensor) -> None:
        with compute.autocast():
            logits = model(images)
        value = loss(logits, of_them)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        optimizer.step()
        value.item()  # waits for a GPU

    def real() -> None:
        feed = batches(pixels.pixels, labels, order, batch, device=compute.device)
        for number, _, images, of_them in feed:
            step(augment(images, AugmentationSpec(), 0, 0, number), of_them)

    def same() -> None:
        for _ in range(steps):
            step(fixed, fixed_labels)

    # Of seconds: fixed over real is real over fixed of steps a second.
    return compare(
        f"{steps} steps of {name} on one fixed tensor, {compute.precision}, batch {batch}", same,
        "on images of the cache, augmented", real,
    )  # fmt: skip
