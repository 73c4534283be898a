"""P6: torchvision's augmentation, image by image, over ours, with the same distributions, on this CPU."""

from collections.abc import Iterator

import torch
from torchvision.transforms import v2

from benchmarks.timing import Ratio, compare
from bgpanet.data.augmentation import DEVIATION, MEAN, augment
from bgpanet.specs import AugmentationSpec

BATCH, SIZE = 32, 224


def measure() -> Iterator[tuple[str, Ratio | str]]:
    """(goal, what was measured)."""
    images = torch.randint(256, (BATCH, SIZE, SIZE, 3), dtype=torch.uint8)
    spec = AugmentationSpec()
    theirs = v2.Compose(
        [
            v2.RandomHorizontalFlip(spec.horizontal_flip),
            v2.RandomVerticalFlip(spec.vertical_flip),
            v2.ToDtype(torch.float32, scale=True),
            v2.ColorJitter(spec.brightness, spec.contrast, spec.saturation, spec.hue),
            v2.Normalize(MEAN, DEVIATION),
        ]
    )

    def one_by_one() -> None:
        torch.stack([theirs(image.permute(2, 0, 1)) for image in images])

    yield "P6, augmentation alone", compare(
        f"torchvision's augmentation of {BATCH} images at {SIZE}", one_by_one,
        "ours, in a batch", lambda: augment(images, spec, 0, 0, 0),
    )  # fmt: skip
