"""BGPANet: a Swin backbone with BGPA blocks in it."""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from bgpanet.errors import InvalidInput
from bgpanet.models.bgpa import BGPABlock, BlockMaps, Branches, SpatialStatistics
from bgpanet.models.swin import BACKBONES, STAGES, Size, build_swin

Placement = Literal["stage", "block"]
START_SCALE = 0.1


class ScaledBlock(nn.Module):
    """X + s (Y - X), Y the block's output and s a learned number that starts small.

    A BGPA block has no identity path and damps what passes it about threefold at the start; eighteen in a row would
    leave nothing. A departure from the article, which does not say how its nets of 24 blocks are trained.
    """

    def __init__(self, block: BGPABlock) -> None:
        super().__init__()
        self.block = block
        self.scale = nn.Parameter(torch.tensor(START_SCALE))

    def forward(self, x_BHWC: Tensor) -> Tensor:  # noqa: N803
        """(B, H, W, C) to (B, H, W, C)."""
        return torch.lerp(x_BHWC, self.block(x_BHWC), self.scale.to(x_BHWC.dtype))


class BGPANet(nn.Module):
    """(B, 3, H, W) images, normalised, to (B, K) logits.

    placement: `stage` has one BGPA block after each of the four stages; `block` has one after every Swin block,
    wrapped as `ScaledBlock`. Names of the backbone's parameters are torchvision's, so its weights load as they are.

    Raises:
        InvalidInput: when an option makes no sense.
    """

    def __init__(
        self,
        num_classes: int,
        size: Size = "base",
        placement: Placement = "stage",
        window_size: int = 4,
        reduction: int = 16,
        embedding_ratio: float = 1.0,
        spatial_statistics: SpatialStatistics = "prior_weighted",
        branches: Branches = "all",
    ) -> None:
        super().__init__()
        if size not in BACKBONES:
            raise InvalidInput.one("size", f"unknown: {size!r}; known: {', '.join(BACKBONES)}")
        if placement not in ("stage", "block"):
            raise InvalidInput.one("placement", f"must be stage or block, not {placement!r}")
        if num_classes < 2:
            raise InvalidInput.one("num_classes", f"must be 2 or more, not {num_classes}")
        swin: Any = build_swin(size, num_classes)
        self.features, self.norm, self.head = swin.features, swin.norm, swin.head
        self.placement = placement
        options = (reduction, window_size, embedding_ratio, spatial_statistics, branches)
        self.bgpa = nn.ModuleList()
        for stage, channels in zip(STAGES, BACKBONES[size].channels, strict=True):
            if placement == "stage":
                self.bgpa.append(BGPABlock(channels, *options))
            else:
                depth = len(self.features[stage])
                self.bgpa.append(nn.ModuleList(ScaledBlock(BGPABlock(channels, *options)) for _ in range(depth)))

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) to logits (B, K)."""
        x_BHWC = images  # noqa: N806 - the patch embedding makes it so
        for position, part in enumerate(self.features):
            x_BHWC = self._stage(STAGES.index(position), part, x_BHWC) if position in STAGES else part(x_BHWC)  # noqa: N806
        logits: Tensor = self.head(self.norm(x_BHWC).mean(dim=(1, 2)))
        return logits

    def _stage(self, number: int, swin_blocks: Any, x_BHWC: Tensor) -> Tensor:  # noqa: N803
        if self.placement == "stage":
            result: Tensor = self.bgpa[number](swin_blocks(x_BHWC))
            return result
        pairs: Any = self.bgpa[number]
        for swin_block, bgpa_block in zip(swin_blocks, pairs, strict=True):
            x_BHWC = bgpa_block(swin_block(x_BHWC))  # noqa: N806
        return x_BHWC

    def attention_maps(self, images: Tensor) -> list[BlockMaps]:
        """What every BGPA block looks at, from the first to the last."""
        maps: list[BlockMaps] = []
        blocks = [module for module in self.modules() if isinstance(module, BGPABlock)]
        hooks = [
            block.register_forward_pre_hook(lambda module, inputs: maps.append(module.maps(inputs[0])))
            for block in blocks
        ]
        try:
            with torch.no_grad():
                self(images)
        finally:
            for hook in hooks:
                hook.remove()
        return maps
