"""Properties that any implementation of the block keeps."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bgpanet.errors import InvalidInput
from bgpanet.models.bgpa import (
    BGPABlock,
    ChannelPriorAttention,
    CrossDimensionalCollaborativeAttention,
    SpatialAttentionRefinement,
)

SIZES = [(8, 8), (14, 14), (7, 7), (5, 3)]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def block(channels: int = 16, **options: Any) -> Any:
    """A block in float64 whose fusion is not at its symmetric start."""
    made = BGPABlock(channels, **options).double()
    if made.mix_logits is not None:
        nn.init.normal_(made.mix_logits)
    return made


def features(batch: int, height: int, width: int, channels: int = 16) -> Tensor:
    return torch.randn(batch, height, width, channels, dtype=torch.float64)


@torch.no_grad()
def naive_context(x: Tensor, weight: Tensor, side: int) -> Tensor:
    """Window attention from its equation, one position after the other; it knows of no pads."""
    batch, height, width, _ = x.shape
    out = torch.zeros_like(x)
    for b in range(batch):
        for i in range(height):
            for j in range(width):
                rows = range(i // side * side, min(i // side * side + side, height))
                columns = range(j // side * side, min(j // side * side + side, width))
                window = [x[b, r, c] for r in rows for c in columns]
                query = weight @ x[b, i, j]
                scores = [(query @ (weight @ token)).item() / math.sqrt(len(weight)) for token in window]
                total = sum(math.exp(score - max(scores)) for score in scores)
                for score, token in zip(scores, window, strict=True):
                    out[b, i, j] += math.exp(score - max(scores)) / total * token
    return out


# ── Fusion and the two gates ─────────────────────────────────────────────────────────────────────────────────────


def test_the_block_is_the_sum_of_its_branches_by_the_equations() -> None:
    made = block()
    x = features(2, 7, 5)
    g = torch.sigmoid(made.cpa.fc2(nn.functional.silu(made.cpa.fc1(x.mean(dim=(1, 2))))))[:, None, None]
    coarse = g * x
    statistics = torch.stack([(g * coarse).mean(-1), (g * coarse).amax(-1)], dim=1)
    fine = torch.sigmoid(made.sar.conv(statistics)).permute(0, 2, 3, 1) * coarse
    context = fine + naive_context(fine, made.cdca.embed.weight, 4) * g
    a, b, c = made.mix_logits.softmax(0)
    torch.testing.assert_close(made(x), a * coarse + b * fine + c * context, rtol=0, atol=1e-12)


def test_the_fusion_is_a_convex_combination_whose_logits_gradients_cancel() -> None:
    made = block()
    weights = made.maps(features(1, 4, 4)).fusion
    assert (weights > 0).all()
    assert weights.sum().item() == pytest.approx(1.0, abs=1e-12)
    made(features(2, 8, 8)).square().sum().backward()
    assert made.mix_logits.grad is not None
    assert made.mix_logits.grad.abs().max() > 1e-3
    assert float(made.mix_logits.grad.sum()) == pytest.approx(0.0, abs=1e-9)


def test_a_new_block_weighs_its_branches_equally() -> None:
    assert BGPABlock(8).maps(torch.zeros(1, 4, 4, 8)).fusion.tolist() == pytest.approx([1 / 3] * 3)


def test_both_gates_lie_strictly_between_0_and_1() -> None:
    maps = block().maps(features(3, 9, 6))
    for gate in (maps.prior, maps.spatial):
        assert ((gate > 0) & (gate < 1)).all()
    assert (maps.prior.shape, maps.spatial.shape) == ((3, 16), (3, 9, 6))


def test_the_hidden_width_of_the_prior_is_a_sixteenth_but_at_least_8() -> None:
    assert [ChannelPriorAttention(c).fc1.out_features for c in (32, 128, 1024)] == [8, 8, 64]


@pytest.mark.parametrize(("statistics", "changes"), [("prior_weighted", True), ("plain", False)])
def test_the_spatial_map_follows_the_prior_only_with_prior_weighted_statistics(statistics: str, changes: bool) -> None:
    refine = SpatialAttentionRefinement(statistics).double()  # type: ignore[arg-type]
    coarse, g = features(1, 6, 6), torch.rand(1, 1, 1, 16, dtype=torch.float64)
    assert torch.equal(refine(coarse, g), refine(coarse, g.square())) is not changes


# ── Window attention ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("ratio", [1.0, 0.25])
def test_window_attention_equals_a_naive_loop(height: int, width: int, ratio: float) -> None:
    attend = CrossDimensionalCollaborativeAttention(16, 4, ratio).double()
    x = features(2, height, width)
    torch.testing.assert_close(attend(x), naive_context(x, attend.embed.weight, 4), rtol=0, atol=1e-12)


def test_a_constant_map_has_a_constant_context_also_where_windows_are_padded() -> None:
    attend = CrossDimensionalCollaborativeAttention(8).double()
    x = torch.randn(8, dtype=torch.float64).expand(1, 7, 7, 8)
    torch.testing.assert_close(attend(x), x, rtol=0, atol=1e-12)


def test_weights_of_real_positions_sum_to_1_and_pads_get_none() -> None:
    attend = CrossDimensionalCollaborativeAttention(8).double()
    weights = attend.attention(features(1, 5, 3, 8)).view(2, 1, 4, 4, 4, 4)
    torch.testing.assert_close(weights.sum(dim=(-1, -2)), torch.ones(2, 1, 4, 4, dtype=torch.float64))
    assert weights[..., 3].abs().max() == 0  # the column that pads a width of 3
    assert weights[1, ..., 1:, :].abs().max() == 0  # the rows that pad a height of 5


def test_permuting_the_positions_of_a_window_permutes_its_output() -> None:
    attend = CrossDimensionalCollaborativeAttention(8).double()
    x = features(1, 4, 4, 8)
    order = torch.randperm(16)
    shuffled = x.view(1, 16, 8)[:, order].view_as(x)
    torch.testing.assert_close(attend(shuffled).view(16, 8), attend(x).view(16, 8)[order], rtol=0, atol=1e-12)


def test_swapping_whole_windows_swaps_their_output() -> None:
    attend = CrossDimensionalCollaborativeAttention(8).double()
    x = features(1, 8, 8, 8)
    torch.testing.assert_close(attend(x.roll(4, dims=1)), attend(x).roll(4, dims=1), rtol=0, atol=1e-12)


def test_windows_do_not_see_each_other() -> None:
    attend = CrossDimensionalCollaborativeAttention(8).double()
    x = features(1, 8, 8, 8)
    changed = x.clone()
    changed[:, :4, :4] += 1
    before, after = attend(x), attend(changed)
    assert torch.equal(before[:, 4:], after[:, 4:])
    assert torch.equal(before[:, :, 4:], after[:, :, 4:])
    assert not torch.equal(before[:, :4, :4], after[:, :4, :4])


@pytest.mark.parametrize("axis", [1, 2])
def test_window_attention_commutes_with_a_flip_where_windows_fit(axis: int) -> None:
    attend = CrossDimensionalCollaborativeAttention(8).double()
    x = features(2, 8, 12, 8)
    torch.testing.assert_close(attend(x.flip(axis)), attend(x).flip(axis), rtol=0, atol=1e-12)


@pytest.mark.parametrize("windows", [65_535, 65_536, 65_537])
def test_any_number_of_windows_is_attended(windows: int) -> None:
    """Fused kernels fail from 65,536 on; the last windows must equal the same windows alone."""
    attend = CrossDimensionalCollaborativeAttention(4, window_size=2).eval()
    x = torch.randn(windows, 2, 2, 4)
    with torch.no_grad():
        torch.testing.assert_close(attend(x)[-3:], attend(x[-3:]))


# ── Training with it ─────────────────────────────────────────────────────────────────────────────────────────────


def test_gradients_are_those_of_finite_differences_at_7_by_7() -> None:
    made = block(4)
    assert torch.autograd.gradcheck(made, features(1, 7, 7, 4).requires_grad_(), atol=1e-6)


def test_every_parameter_gets_a_gradient() -> None:
    made = block()
    made(features(2, 7, 7)).square().sum().backward()
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_images_of_a_batch_do_not_see_each_other() -> None:
    made = block()
    x = features(3, 7, 7)
    torch.testing.assert_close(made(x)[1:2], made(x[1:2]), rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [(8, 8), (7, 7)])
def test_bfloat16_autocast_stays_near_float32(size: tuple[int, int]) -> None:
    made = BGPABlock(32)
    x = torch.randn(2, *size, 32) * 3
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = made(x)
    assert low.isfinite().all()
    assert (low.float() - made(x)).abs().max().item() < 0.1


def test_checkpoints_of_the_listing_load() -> None:
    """There the embedding is a 1x1 convolution; every other name and shape is the same."""
    made: Any = BGPABlock(32)
    listing = {
        "cpa.fc1.weight": torch.randn(8, 32),
        "cpa.fc1.bias": torch.randn(8),
        "cpa.fc2.weight": torch.randn(32, 8),
        "cpa.fc2.bias": torch.randn(32),
        "sar.conv.weight": torch.randn(1, 2, 7, 7),
        "cdca.embed.weight": torch.randn(32, 32, 1, 1),
        "mix_logits": torch.randn(3),
    }
    made.load_state_dict(listing)
    assert torch.equal(made.cdca.embed.weight, listing["cdca.embed.weight"][:, :, 0, 0])
    assert {name: value.shape for name, value in made.state_dict().items()} == {
        **{name: value.shape for name, value in listing.items()},
        "cdca.embed.weight": (32, 32),
    }


def listing_block(made: Any, x: Tensor) -> Tensor:
    """The article's block, channels-first, from its listing: plain statistics, windows that fit."""
    images = x.permute(0, 3, 1, 2)
    g = torch.sigmoid(made.cpa.fc2(nn.functional.silu(made.cpa.fc1(images.mean(dim=(-2, -1))))))[..., None, None]
    coarse = images * g
    pair = torch.cat([coarse.mean(1, keepdim=True), coarse.amax(1, keepdim=True)], dim=1)
    fine = coarse * torch.sigmoid(made.sar.conv(pair))
    width = fine.shape[1]

    def windows(y: Tensor) -> Tensor:
        cut = y.unfold(2, 4, 4).unfold(3, 4, 4)
        return cut.permute(0, 2, 3, 4, 5, 1).reshape(-1, 16, width)

    embedding = windows(nn.functional.conv2d(fine, made.cdca.embed.weight[..., None, None]))
    attention = (embedding @ embedding.transpose(1, 2) / math.sqrt(width)).softmax(-1)
    delta = attention @ windows(g.expand_as(fine) * fine)
    rows, columns = fine.shape[2] // 4, fine.shape[3] // 4
    delta = delta.view(-1, rows, columns, 4, 4, width).permute(0, 5, 1, 3, 2, 4).reshape_as(fine)
    a, b, c = made.mix_logits.softmax(0)
    fused: Tensor = a * coarse + b * fine + c * (fine + delta)
    return fused.permute(0, 2, 3, 1)


def test_with_plain_statistics_and_whole_windows_it_is_the_listings_block() -> None:
    made = block(spatial_statistics="plain")
    x = features(2, 8, 12)
    torch.testing.assert_close(made(x), listing_block(made, x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("branches", ["cpa", "cpa_sar"])
def test_with_a_branch_off_the_others_are_fused_alone(branches: str) -> None:
    made, x = block(branches=branches), features(2, 7, 5)
    maps = made.maps(x)
    coarse = maps.prior[:, None, None] * x
    wanted = coarse
    if branches == "cpa_sar":
        a, b = made.mix_logits.softmax(0)
        wanted = a * coarse + b * maps.spatial[..., None] * coarse
    torch.testing.assert_close(made(x), wanted, rtol=0, atol=1e-12)
    assert maps.windows is None
    assert maps.fusion.sum().item() == pytest.approx(1)
    made(x).square().sum().backward()
    for name, parameter in made.named_parameters():
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize(
    "options",
    [
        {"window_size": 0},
        {"reduction": 0},
        {"embedding_ratio": 0.0},
        {"spatial_statistics": "wild"},
        {"channels": 0},
        {"branches": "cdca"},
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        BGPABlock(**{"channels": 8, **options})  # type: ignore[arg-type]
