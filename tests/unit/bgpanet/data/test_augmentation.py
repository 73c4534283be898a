"""Augmentation: torchvision's operations, drawn reproducibly."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as reference

from bgpanet.data.augmentation import (
    DEVIATION,
    MEAN,
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    augment,
    normalise,
)
from bgpanet.specs import AugmentationSpec

NOTHING = AugmentationSpec(horizontal_flip=0, vertical_flip=0, brightness=0, contrast=0, saturation=0, hue=0)


def images(count: int = 4, size: int = 8) -> Tensor:
    return torch.randint(256, (count, size, size, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.mark.parametrize(
    ("own", "theirs", "factors"),
    [
        (adjust_brightness, reference.adjust_brightness, (0.0, 0.8, 1.0, 1.3)),
        (adjust_contrast, reference.adjust_contrast, (0.0, 0.8, 1.0, 1.3)),
        (adjust_saturation, reference.adjust_saturation, (0.0, 0.8, 1.0, 1.3)),
        (adjust_hue, reference.adjust_hue, (-0.5, -0.1, 0.0, 0.25)),
    ],
)
def test_each_operation_is_torchvisions(
    own: Callable[[Tensor, Tensor], Tensor], theirs: Callable[[Tensor, float], Tensor], factors: tuple[float, ...]
) -> None:
    pixels = images() / 255
    pixels[0, :4] = 0.5  # grey has no hue
    done = own(pixels.clone(), torch.tensor(factors)[:, None, None])
    for number, factor in enumerate(factors):
        wanted = theirs(pixels[number].permute(2, 0, 1), factor).permute(1, 2, 0)
        torch.testing.assert_close(done[number], wanted, rtol=0, atol=3e-6)


def test_normalising_is_torchvisions() -> None:
    wanted = reference.normalize(images().permute(0, 3, 1, 2) / 255, list(MEAN), list(DEVIATION))
    made = normalise(images())
    torch.testing.assert_close(made, wanted)
    assert made.is_contiguous(memory_format=torch.channels_last)


def test_without_changes_it_only_normalises() -> None:
    assert torch.equal(augment(images(), NOTHING, 0, 0, 0), normalise(images()))


def test_the_same_position_of_a_run_draws_the_same_and_any_other_does_not() -> None:
    spec = AugmentationSpec()
    made = augment(images(), spec, 1, 2, 3)
    assert torch.equal(made, augment(images(), spec, 1, 2, 3))
    for other in ((0, 2, 3), (1, 3, 3), (1, 2, 4), (1, 3, 2)):
        assert not torch.equal(made, augment(images(), spec, *other))


def test_an_image_is_changed_the_same_way_whoever_else_is_in_its_batch() -> None:
    spec = AugmentationSpec()
    assert torch.equal(augment(images(4), spec, 0, 0, 0)[:2], augment(images(4)[:2], spec, 0, 0, 0))
    rows = np.array([1, 3])
    assert torch.equal(augment(images(4), spec, 0, 0, 0)[rows], augment(images(4)[rows], spec, 0, 0, 0, rows))


def test_flips_turn_whole_images_with_their_probability() -> None:
    same = images(1).expand(2000, -1, -1, -1)
    spec = NOTHING.model_copy(update={"horizontal_flip": 0.3, "vertical_flip": 0.8})
    made = augment(same, spec, 0, 0, 0)
    plain = normalise(images(1))[0]
    seen = {
        (horizontal, vertical): sum(
            torch.equal(image, plain.flip([axis for axis, turned in ((2, horizontal), (1, vertical)) if turned]))
            for image in made
        )
        / 2000
        for horizontal in (False, True)
        for vertical in (False, True)
    }
    assert sum(seen.values()) == 1
    # Three standard errors of a share of 2000 draws are at most 0.034.
    assert seen[True, True] + seen[True, False] == pytest.approx(0.3, abs=0.034)
    assert seen[True, True] + seen[False, True] == pytest.approx(0.8, abs=0.034)


def test_brightness_is_drawn_evenly_from_its_interval() -> None:
    grey = torch.full((2000, 1, 1, 3), 100, dtype=torch.uint8)
    made = augment(grey, NOTHING.model_copy(update={"brightness": 0.2}), 0, 0, 0)
    factors = (made * torch.tensor(DEVIATION)[:, None, None] + torch.tensor(MEAN)[:, None, None])[:, 0] * 2.55
    assert 0.8 <= float(factors.min()) < 0.81
    assert 1.19 < float(factors.max()) <= 1.2001
    assert float(factors.mean()) == pytest.approx(1.0, abs=0.008)


def test_values_stay_within_those_of_images() -> None:
    strong = AugmentationSpec(brightness=1, contrast=1, saturation=1, hue=0.5)
    made = augment(images(64), strong, 0, 0, 0)
    pixels = made * torch.tensor(DEVIATION)[:, None, None] + torch.tensor(MEAN)[:, None, None]
    assert float(pixels.min()) >= -1e-6
    assert float(pixels.max()) <= 1 + 1e-6
