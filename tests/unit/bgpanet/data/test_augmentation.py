"""Augmentation: torchvision's operations, drawn reproducibly."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as reference

from bgpanet.data import augmentation
from bgpanet.data.augmentation import (
    DEVIATION,
    MEAN,
    _draw,
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
    own: Callable[[Tensor, Tensor], None], theirs: Callable[[Tensor, float], Tensor], factors: tuple[float, ...]
) -> None:
    pixels = (images() / 255).permute(0, 3, 1, 2).contiguous()
    pixels[:, :, :1] = 0.5  # grey has no hue
    pixels[:, :, 1] = torch.tensor([1.0, 0.0, 1.0])[:, None]  # two largest, two smallest, extremes
    pixels[:, :, 2] = torch.tensor([0.0, 1.0, 0.0])[:, None]
    done = pixels.clone()
    own(done, torch.tensor(factors)[:, None, None, None])
    for number, factor in enumerate(factors):
        torch.testing.assert_close(done[number], theirs(pixels[number], factor), rtol=0, atol=3e-6)


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


def test_an_image_gets_torchvisions_operations_in_the_order_that_was_drawn_for_it() -> None:
    spec = AugmentationSpec(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.3)
    operations = (
        reference.adjust_brightness,
        reference.adjust_contrast,
        reference.adjust_saturation,
        reference.adjust_hue,
    )
    made, drawn = augment(images(24), spec, 5, 1, 2), _draw(np.arange(24), spec, 5, 1, 2)
    assert len(np.unique(drawn.order, axis=0)) > 10
    for number, image in enumerate(images(24)):
        wanted = image.permute(2, 0, 1) / 255
        if drawn.horizontal[number]:
            wanted = reference.horizontal_flip(wanted)
        if drawn.vertical[number]:
            wanted = reference.vertical_flip(wanted)
        for operation in drawn.order[number]:
            wanted = operations[operation](wanted, float(drawn.factors[number, operation]))
        wanted = reference.normalize(wanted, list(MEAN), list(DEVIATION))
        torch.testing.assert_close(made[number], wanted, rtol=0, atol=3e-5)  # 3e-6 of values up to 1 / 0.22


def test_a_batch_at_once_as_on_a_gpu_is_what_its_images_are_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = AugmentationSpec(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.3)
    made, plain = augment(images(24), spec, 0, 0, 0), normalise(images(24))
    monkeypatch.setattr(augmentation, "_parts", lambda images: [slice(0, len(images))])
    at_once = augment(images(24), spec, 0, 0, 0)
    torch.testing.assert_close(at_once, made, rtol=0, atol=1e-5)
    assert torch.equal(normalise(images(24)), plain)
    assert at_once.is_contiguous(memory_format=torch.channels_last)
    assert made.is_contiguous(memory_format=torch.channels_last)
