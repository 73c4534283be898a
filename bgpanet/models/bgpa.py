"""The Bi-Granular Progressive Attention block and its three branches, channels-last throughout.

Shapes: B images, H x W positions, C channels, d embedding width, M window side, N = M² tokens of a window, n windows
of all images. A suffix names the axes: `x_BHWC`, `mask_nN`. Source: Liu et al., Expert Systems With Applications 321
(2026) 132169; where the article is silent, `docs/fidelity.md` tells what was decided.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bgpanet.errors import InvalidInput

SpatialStatistics = Literal["prior_weighted", "plain"]
Branches = Literal["all", "cpa_sar", "cpa"]


class ChannelPriorAttention(nn.Module):
    """CPA: g = sigmoid(W2 silu(W1 z)), z the mean of each channel over all positions. Hidden width max(C / r, 8)."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(channels // reduction, 8)
        self.fc1 = nn.Linear(channels, hidden)
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, x_BHWC: Tensor) -> Tensor:  # noqa: N803
        """The channel prior g, (B, 1, 1, C), in (0, 1)."""
        z_BC = x_BHWC.mean(dim=(1, 2))  # noqa: N806
        return torch.sigmoid(self.fc2(F.silu(self.fc1(z_BC))))[:, None, None, :]


class SpatialAttentionRefinement(nn.Module):
    """SAR: M_s = sigmoid(conv7x7([f_avg; f_max])), the mean and the maximum over channels of g X_c.

    With `plain` statistics g is left out, as in the article's listing.
    """

    def __init__(self, spatial_statistics: SpatialStatistics = "prior_weighted", kernel_size: int = 7) -> None:
        super().__init__()
        self.spatial_statistics = spatial_statistics
        self.conv = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2, bias=False)

    def forward(self, coarse_BHWC: Tensor, g_B11C: Tensor) -> Tensor:  # noqa: N803
        """The spatial map M_s, (B, H, W, 1), in (0, 1)."""
        weighted = coarse_BHWC * g_B11C if self.spatial_statistics == "prior_weighted" else coarse_BHWC
        statistics = torch.stack([weighted.mean(dim=-1), weighted.amax(dim=-1)], dim=1)
        return torch.sigmoid(self.conv(statistics)).permute(0, 2, 3, 1)


class CrossDimensionalCollaborativeAttention(nn.Module):
    """CDCA: softmax(E E^T / sqrt(d)) X_s over windows of M x M positions that do not overlap, E = X_s W_e.

    Windows that stick out over the edge are padded; pads take no part: every real position attends to the real
    positions of its window alone. Queries and keys are the same embedding; there is no value projection.
    """

    def __init__(self, channels: int, window_size: int = 4, embedding_ratio: float = 1.0) -> None:
        super().__init__()
        self.window_size = window_size
        width = max(1, round(channels * embedding_ratio))
        self.scale = width**-0.5
        self.embed = nn.Linear(channels, width, bias=False)
        # The listing's checkpoints hold a 1x1 convolution here, (d, C, 1, 1): the same numbers.
        self.register_load_state_dict_pre_hook(_squeeze_convolution)  # type: ignore[no-untyped-call]

    def forward(self, fine_BHWC: Tensor) -> Tensor:  # noqa: N803
        """The windows' averages A X_s, (B, H, W, C)."""
        height, width = fine_BHWC.shape[1:3]
        tokens_nNC = _partition(fine_BHWC, self.window_size)  # noqa: N806
        averages_nNC = self._attend(fine_BHWC, tokens_nNC) @ tokens_nNC  # noqa: N806
        return _merge(averages_nNC, len(fine_BHWC), height, width, self.window_size)

    def attention(self, fine_BHWC: Tensor) -> Tensor:  # noqa: N803
        """The weights A, (n, N, N): row i is what position i of a window takes from each position of it."""
        return self._attend(fine_BHWC, _partition(fine_BHWC, self.window_size))

    def _attend(self, fine_BHWC: Tensor, tokens_nNC: Tensor) -> Tensor:  # noqa: N803
        height, width = fine_BHWC.shape[1:3]
        side = self.window_size
        is_padded = bool(height % side or width % side)
        # Pads are not worth embedding: at 7 x 7 they are a quarter of the tokens.
        embedding_nNd = (  # noqa: N806
            _partition(self.embed(fine_BHWC), side) if is_padded else self.embed(tokens_nNC)
        )
        logits_nNN = embedding_nNd @ (embedding_nNd * self.scale).transpose(1, 2)  # noqa: N806
        if is_padded:
            real_wN = _real_positions(height, width, side, logits_nNN.device)  # noqa: N806
            per_image = logits_nNN.view(-1, *real_wN.shape, side**2)
            # Every window has a real position, so no row is without one; rows of pads are read by nobody.
            logits_nNN = per_image.masked_fill(~real_wN[None, :, None, :], float("-inf")).view_as(logits_nNN)  # noqa: N806
        wide = torch.promote_types(logits_nNN.dtype, torch.float32)
        weights_nNN: Tensor = logits_nNN.softmax(dim=-1, dtype=wide)  # noqa: N806
        return weights_nNN.to(tokens_nNC.dtype)


@dataclass(frozen=True)
class BlockMaps:
    """What a block looked at: g (B, C), M_s (B, H, W), A (n, N, N), and the fusion weights of its branches.

    None stands for a branch that the block does not have.
    """

    prior: Tensor
    spatial: Tensor | None
    windows: Tensor | None
    fusion: Tensor

    def received(self) -> Tensor | None:
        """What each position is given of its window's attention, (B, H, W): its column of A summed over the window's
        real positions. 1 on average over a window, and everywhere where all attend to all alike."""
        if self.windows is None or self.spatial is None:
            return None
        (batch, height, width), side = self.spatial.shape, round(self.windows.shape[1] ** 0.5)
        real_wN = _real_positions(height, width, side, self.windows.device)  # noqa: N806
        given = self.windows.view(batch, *real_wN.shape, side**2) * real_wN[..., None]
        return _merge(given.sum(dim=2).flatten(0, 1)[..., None], batch, height, width, side)[..., 0]


class BGPABlock(nn.Module):
    """Y = a X_c + b X_s + c X_ctx with (a, b, c) = softmax(mix_logits), in which

    X_c = g X (coarse), X_s = M_s X_c (fine), X_ctx = X_s + g (A X_s) (context). g is constant over positions, so it
    is applied to the windows' averages instead of every position before averaging.

    With `branches="cpa_sar"` the fusion is over X_c and X_s alone, with `"cpa"` Y = X_c: the ablations.

    Raises:
        InvalidInput: when an option makes no sense.
    """

    def __init__(
        self,
        channels: int,
        reduction: int = 16,
        window_size: int = 4,
        embedding_ratio: float = 1.0,
        spatial_statistics: SpatialStatistics = "prior_weighted",
        branches: Branches = "all",
    ) -> None:
        super().__init__()
        if channels < 1 or reduction < 1 or window_size < 1 or not 0 < embedding_ratio <= 1:
            raise InvalidInput.one(
                "BGPABlock", "channels, reduction and window_size must be 1 or more, embedding_ratio in (0, 1]"
            )
        if spatial_statistics not in ("prior_weighted", "plain"):
            raise InvalidInput.one("BGPABlock.spatial_statistics", "must be prior_weighted or plain")
        if branches not in ("all", "cpa_sar", "cpa"):
            raise InvalidInput.one("BGPABlock.branches", "must be all, cpa_sar or cpa")
        self.cpa = ChannelPriorAttention(channels, reduction)
        self.sar = SpatialAttentionRefinement(spatial_statistics) if branches != "cpa" else None
        attend = CrossDimensionalCollaborativeAttention
        self.cdca = attend(channels, window_size, embedding_ratio) if branches == "all" else None
        # One branch alone has nothing to weigh.
        weighed = {"all": 3, "cpa_sar": 2, "cpa": 0}[branches]
        self.mix_logits = nn.Parameter(torch.zeros(weighed)) if weighed else None

    def forward(self, x_BHWC: Tensor) -> Tensor:  # noqa: N803
        """(B, H, W, C) to (B, H, W, C)."""
        g_B11C = self.cpa(x_BHWC)  # noqa: N806
        coarse_BHWC: Tensor = x_BHWC * g_B11C  # noqa: N806
        if self.sar is None or self.mix_logits is None:
            return coarse_BHWC
        spatial_BHW1 = self.sar(coarse_BHWC, g_B11C)  # noqa: N806
        if self.cdca is None:
            a, b = self.mix_logits.softmax(dim=0).unbind()
            fused: Tensor = coarse_BHWC * (a + b * spatial_BHW1).to(coarse_BHWC.dtype)
            return fused
        fine_BHWC = coarse_BHWC * spatial_BHW1  # noqa: N806
        a, b, c = self.mix_logits.softmax(dim=0).unbind()
        # a X_c + b X_s + c X_s with X_s = M_s X_c is one product; what is left is c g (A X_s).
        gate_BHW1 = (a + (b + c) * spatial_BHW1).to(coarse_BHWC.dtype)  # noqa: N806
        return torch.addcmul(coarse_BHWC * gate_BHW1, (c * g_B11C).to(coarse_BHWC.dtype), self.cdca(fine_BHWC))

    def maps(self, x_BHWC: Tensor) -> BlockMaps:  # noqa: N803
        """What the block looks at in `x`, for explanations."""
        g_B11C = self.cpa(x_BHWC)  # noqa: N806
        coarse_BHWC = x_BHWC * g_B11C  # noqa: N806
        spatial_BHW1 = None if self.sar is None else self.sar(coarse_BHWC, g_B11C)  # noqa: N806
        windows = None
        if self.cdca is not None and spatial_BHW1 is not None:
            windows = self.cdca.attention(coarse_BHWC * spatial_BHW1)
        return BlockMaps(
            prior=g_B11C[:, 0, 0],
            spatial=None if spatial_BHW1 is None else spatial_BHW1[..., 0],
            windows=windows,
            fusion=torch.ones(1) if self.mix_logits is None else self.mix_logits.softmax(dim=0),
        )


def _partition(x_BHWC: Tensor, side: int) -> Tensor:  # noqa: N803
    """(B, H, W, C) to (n, N, C), window by window; the lower and right edge padded with zeros."""
    batch, height, width, channels = x_BHWC.shape
    x_BHWC = F.pad(x_BHWC, (0, 0, 0, -width % side, 0, -height % side))  # noqa: N806
    rows, columns = x_BHWC.shape[1] // side, x_BHWC.shape[2] // side
    windows = x_BHWC.view(batch, rows, side, columns, side, channels).transpose(2, 3)
    return windows.reshape(batch * rows * columns, side**2, channels)


def _merge(windows_nNC: Tensor, batch: int, height: int, width: int, side: int) -> Tensor:  # noqa: N803
    """The inverse of `_partition`, pads dropped."""
    rows, columns = -(-height // side), -(-width // side)
    channels = windows_nNC.shape[-1]
    x_BHWC = windows_nNC.view(batch, rows, columns, side, side, channels).transpose(2, 3)  # noqa: N806
    return x_BHWC.reshape(batch, rows * side, columns * side, channels)[:, :height, :width]


def _real_positions(height: int, width: int, side: int, device: torch.device) -> Tensor:
    """(windows of an image, N): false for pads."""
    ones = torch.ones(1, height, width, 1, dtype=torch.bool, device=device)
    return _partition(ones, side)[..., 0]


def _squeeze_convolution(module: nn.Module, state: dict[str, Any], prefix: str, *rest: object) -> None:
    weight = state.get(f"{prefix}embed.weight")
    if weight is not None and weight.ndim == 4:
        state[f"{prefix}embed.weight"] = weight[:, :, 0, 0]
