"""The Swin backbones (Liu et al., ICCV 2021), from torchvision, in four sizes."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from torch import nn
from torchvision.models import Swin_B_Weights, Swin_S_Weights, Swin_T_Weights, swin_b, swin_s, swin_t
from torchvision.models.swin_transformer import SwinTransformer

Size = Literal["base", "small", "tiny", "micro"]
STAGES = (1, 3, 5, 7)
"""Positions of the four stages in `features`; between them stand the patch embedding and the mergings."""


@dataclass(frozen=True)
class Backbone:
    """How a size is built, the channels of its four stages, and torchvision's ImageNet weights for it, if any."""

    build: Callable[..., Any]
    channels: tuple[int, int, int, int]
    weights: Any


_micro = partial(
    SwinTransformer,
    patch_size=[4, 4],
    embed_dim=24,
    depths=[1, 1, 2, 1],
    num_heads=[1, 2, 4, 8],
    window_size=[4, 4],
    stochastic_depth_prob=0.05,
)

BACKBONES: dict[Size, Backbone] = {
    "base": Backbone(swin_b, (128, 256, 512, 1024), Swin_B_Weights.IMAGENET1K_V1),
    "small": Backbone(swin_s, (96, 192, 384, 768), Swin_S_Weights.IMAGENET1K_V1),
    "tiny": Backbone(swin_t, (96, 192, 384, 768), Swin_T_Weights.IMAGENET1K_V1),
    "micro": Backbone(_micro, (24, 48, 96, 192), None),
}


def build_swin(size: Size, num_classes: int) -> nn.Module:
    """A Swin with random weights, (B, 3, H, W) to (B, K)."""
    model: nn.Module = BACKBONES[size].build(num_classes=num_classes)
    return model
