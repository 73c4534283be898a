"""Controls for the BGPA block: a Swin backbone with other attention modules in the same four places.

Channels-last like everything here: (B, H, W, C) in and out.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bgpanet.models.swin import BACKBONES, STAGES, Size, build_swin


class SqueezeExcitation(nn.Module):
    """X · sigmoid(W2 relu(W1 z)), z the mean of each channel over all positions (Hu et al., CVPR 2018)."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(channels // reduction, 8)
        self.fc1 = nn.Linear(channels, hidden)
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, x_BHWC: Tensor) -> Tensor:  # noqa: N803
        """(B, H, W, C) to (B, H, W, C)."""
        z_B11C = x_BHWC.mean(dim=(1, 2), keepdim=True)  # noqa: N806
        return x_BHWC * torch.sigmoid(self.fc2(F.relu(self.fc1(z_B11C))))


class ConvolutionalBlockAttention(nn.Module):
    """CBAM (Woo et al., ECCV 2018): M_c = sigmoid(f(mean) + f(max)) over positions, f a shared perceptron with one
    hidden layer; then M_s = sigmoid(conv7x7([mean; max])) over channels of M_c X. The result is M_s M_c X."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(channels // reduction, 8)
        self.mlp = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels))
        self.conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, x_BHWC: Tensor) -> Tensor:  # noqa: N803
        """(B, H, W, C) to (B, H, W, C)."""
        mean, largest = x_BHWC.mean(dim=(1, 2), keepdim=True), x_BHWC.amax(dim=(1, 2), keepdim=True)
        x_BHWC = x_BHWC * torch.sigmoid(self.mlp(mean) + self.mlp(largest))  # noqa: N806
        statistics = torch.stack([x_BHWC.mean(dim=-1), x_BHWC.amax(dim=-1)], dim=1)
        return x_BHWC * torch.sigmoid(self.conv(statistics)).permute(0, 2, 3, 1)


class SwinWithAttention(nn.Module):
    """(B, 3, H, W) images, normalised, to (B, K) logits: Swin with a module after each of its four stages."""

    def __init__(self, num_classes: int, size: Size, attention: Callable[[int], nn.Module]) -> None:
        super().__init__()
        swin: Any = build_swin(size, num_classes)
        self.features, self.norm, self.head = swin.features, swin.norm, swin.head
        self.attention = nn.ModuleList(attention(channels) for channels in BACKBONES[size].channels)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) to logits (B, K)."""
        x_BHWC = images  # noqa: N806 - the patch embedding makes it so
        for position, part in enumerate(self.features):
            x_BHWC = part(x_BHWC)  # noqa: N806
            if position in STAGES:
                x_BHWC = self.attention[STAGES.index(position)](x_BHWC)  # noqa: N806
        logits: Tensor = self.head(self.norm(x_BHWC).mean(dim=(1, 2)))
        return logits
