"""The block's own maps: the same numbers as in its forward pass, in every placement, with branches switched off."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bgpanet.errors import InvalidInput
from bgpanet.explanation.attention import BlockView, last_of_stages, numbers, views
from bgpanet.models import BGPANet
from bgpanet.models.bgpa import BGPABlock


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def looked_at(size: int = 64, **options: Any) -> tuple[BGPANet, Tensor, list[BlockView]]:
    model, images = BGPANet(7, size="micro", **options), torch.randn(2, 3, size, size)
    with torch.no_grad():
        for block in (module for module in model.modules() if isinstance(module, BGPABlock)):
            if block.mix_logits is not None:
                block.mix_logits.normal_()
    return model, images, views(model, images)


@pytest.mark.parametrize(("placement", "blocks"), [("stage", [1, 1, 1, 1]), ("block", [1, 1, 2, 1])])
def test_every_block_of_a_placement_is_looked_at_where_it_stands(placement: str, blocks: list[int]) -> None:
    _, _, found = looked_at(placement=placement)
    expected = [(stage, n) for stage, count in enumerate(blocks, start=1) for n in range(1, count + 1)]
    assert [(view.stage, view.block) for view in found] == expected
    assert [(view.stage, view.block) for view in last_of_stages(found)] == list(enumerate(blocks, start=1))
    for view in found:
        side, channels = 64 >> (view.stage + 1), 12 << view.stage
        assert view.prior.shape == (2, channels)
        assert view.spatial is not None
        assert view.received is not None
        assert view.spatial.shape == view.received.shape == (2, side, side)
        assert 0 < view.prior.min() < view.prior.max() < 1
        assert 0 < view.spatial.min() < view.spatial.max() < 1
        assert sum(view.fusion.values()) == pytest.approx(1)
        assert view.scale == pytest.approx(1.0 if placement == "stage" else 0.1)


def test_what_positions_receive_is_counted_by_hand_in_windows_that_stick_out() -> None:
    """At 7 x 7 with windows of 4: one loop over all pairs, pads left out."""
    block = BGPABlock(8, window_size=4)
    with torch.no_grad():
        block.cdca.embed.weight.mul_(5)  # type: ignore[union-attr]
    x = torch.randn(2, 7, 5, 8)
    maps = block.maps(x)
    fine = x * block.cpa(x)
    fine = fine * block.sar(fine, block.cpa(x))  # type: ignore[misc]
    embedded = block.cdca.embed(fine)  # type: ignore[union-attr]
    expected = torch.zeros(2, 7, 5)
    for image in range(2):
        for i in range(7):
            for j in range(5):
                window = [(a, b) for a in range(7) for b in range(5) if (a // 4, b // 4) == (i // 4, j // 4)]
                logits = torch.stack([embedded[image, i, j] @ embedded[image, a, b] for a, b in window])
                for (a, b), weight in zip(window, (logits * 8**-0.5).softmax(dim=0), strict=True):
                    expected[image, a, b] += weight.detach()
    received = maps.received()
    assert received is not None
    torch.testing.assert_close(received.detach(), expected, rtol=1e-4, atol=1e-5)
    assert received.std() > 0.01
    torch.testing.assert_close(received[:, 4:, :4].mean(dim=(1, 2)), torch.ones(2))


@pytest.mark.parametrize(
    ("branches", "fused"),
    [("all", ["coarse", "fine", "context"]), ("cpa_sar", ["coarse", "fine"]), ("cpa", ["coarse"])],
)
def test_a_branch_that_is_switched_off_is_absent(branches: str, fused: list[str]) -> None:
    _, _, found = looked_at(branches=branches)
    told = numbers(found)
    for view, row in zip(found, told, strict=True):
        assert list(view.fusion) == fused
        assert sum(view.fusion.values()) == pytest.approx(1)
        assert (view.spatial is None) is (row["spatial"] is None) is (branches == "cpa")
        assert (view.received is None) is (row["received"] is None) is (branches != "all")


def test_looking_leaves_the_model_as_it_was_and_sees_the_same_in_training_and_under_autocast() -> None:
    model, images, expected = looked_at()
    model.train()
    model.features[1].eval()
    modes = [module.training for module in model.modules()]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = views(model, images)
    assert [module.training for module in model.modules()] == modes
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.prior, other.prior)
        np.testing.assert_array_equal(one.spatial, other.spatial)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_images_of_a_batch_do_not_see_each_other() -> None:
    model, images, together = looked_at(size=96)
    for both, alone in zip(together, views(model, images[1:]), strict=True):
        np.testing.assert_allclose(both.received[1:], alone.received, atol=1e-4)  # type: ignore[index, arg-type]
        np.testing.assert_allclose(both.spatial[1:], alone.spatial, atol=1e-5)  # type: ignore[index, arg-type]


def test_numbers_tell_a_prior_that_depends_on_the_image_from_one_that_does_not() -> None:
    model, images, found = looked_at()
    assert all(row["prior"]["sd_images"] > 0 for row in numbers(found))
    with torch.no_grad():
        for block in (module for module in model.modules() if isinstance(module, BGPABlock)):
            block.cpa.fc2.weight.zero_()
            block.sar.conv.weight.zero_()  # type: ignore[union-attr]
    for row in numbers(views(model, images)):
        assert row["prior"]["sd_images"] == pytest.approx(0, abs=1e-7)
        assert row["prior"]["sd_channels"] > 0
        assert row["spatial"] == pytest.approx({"mean": 0.5, "sd_positions": 0, "least": 0.5, "most": 0.5})


def test_a_model_without_blocks_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no BGPA blocks"):
        views(nn.Identity(), torch.zeros(1, 3, 64, 64))
