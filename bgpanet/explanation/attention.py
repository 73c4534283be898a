"""What BGPA blocks look at: channel prior, spatial map, window attention, and how they fuse the three.

Shapes: B images, h x w positions of a stage, C channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bgpanet.errors import InvalidInput
from bgpanet.models.bgpa import BlockMaps
from bgpanet.models.bgpanet import BGPANet, ScaledBlock

BRANCHES = ("coarse", "fine", "context")


@dataclass(frozen=True)
class BlockView:
    """What one block looked at in B images. None stands for a branch that is switched off.

    stage, block: where it stands, both from 1. prior: g, (B, C), in (0, 1). spatial: M_s, (B, h, w), in (0, 1).
    received: what each position is given of its window's attention, (B, h, w), 1 on average. fusion: weight of each
    branch that the block has, sum 1. scale: s of X + s (Y - X), the block's part in what is passed on; 1 where the
    block stands after a stage and passes on Y alone.
    """

    stage: int
    block: int
    prior: np.ndarray
    spatial: np.ndarray | None
    received: np.ndarray | None
    fusion: dict[str, float]
    scale: float


def views(model: nn.Module, images: Tensor) -> list[BlockView]:
    """What every BGPA block looks at, from the first to the last, in fp32 and evaluation mode.

    images: (B, 3, H, W), normalised. The model is left in the mode it was found in.

    Raises:
        InvalidInput: the model has no BGPA blocks.
    """
    if not isinstance(model, BGPANet):
        raise InvalidInput.one("model", "has no BGPA blocks; Grad-CAM explains any model")
    modes = [(module, module.training) for module in model.modules()]
    device = next(model.parameters()).device
    model.eval()
    try:
        with torch.autocast(device.type, enabled=False):
            maps = model.attention_maps(images.to(device).float())
    finally:
        for module, training in modes:
            module.training = training
    return [_view(*place, found) for place, found in zip(_places(model), maps, strict=True)]


def joined(batches: Sequence[Sequence[BlockView]]) -> list[BlockView]:
    """The views of several batches of images, one after the other, as those of one."""
    return [
        replace(
            parts[0],
            prior=np.concatenate([part.prior for part in parts]),
            spatial=_concatenated([part.spatial for part in parts]),
            received=_concatenated([part.received for part in parts]),
        )
        for parts in zip(*batches, strict=True)
    ]


def last_of_stages(blocks: Sequence[BlockView]) -> list[BlockView]:
    """The last block of each stage."""
    return list({view.stage: view for view in blocks}.values())


def numbers(blocks: Sequence[BlockView]) -> list[dict[str, Any]]:
    """Each block in a few figures, plain JSON; None where there is no such branch.

    fusion, scale: as they are. prior: mean over images and channels; sd_channels, the deviation over channels of what
    a channel has on average; sd_images, the deviation over images, on average over channels (0: the prior is the same
    for all images); least and most. spatial, received: mean, sd_positions (0: all positions count alike; on average
    over images), least and most.
    """
    return [
        {
            "stage": view.stage,
            "block": view.block,
            "scale": view.scale,
            "fusion": view.fusion,
            "prior": {
                "mean": float(view.prior.mean()),
                "sd_channels": float(view.prior.mean(axis=0).std()),
                "sd_images": float(view.prior.std(axis=0).mean()),
                "least": float(view.prior.min()),
                "most": float(view.prior.max()),
            },
            "spatial": map_numbers(view.spatial),
            "received": map_numbers(view.received),
        }
        for view in blocks
    ]


def map_numbers(maps_BHW: np.ndarray | None) -> dict[str, float] | None:  # noqa: N803
    """Of B maps: mean, sd_positions, least, most."""
    if maps_BHW is None:
        return None
    return {
        "mean": float(maps_BHW.mean()),
        "sd_positions": float(maps_BHW.std(axis=(1, 2)).mean()),
        "least": float(maps_BHW.min()),
        "most": float(maps_BHW.max()),
    }


def _concatenated(maps: Sequence[np.ndarray | None]) -> np.ndarray | None:
    present = [one for one in maps if one is not None]
    return np.concatenate(present) if present else None


def _places(model: BGPANet) -> list[tuple[int, int, float]]:
    """(stage, block, scale) of every block, in the order in which they are passed."""
    places = []
    for stage, module in enumerate(model.bgpa, start=1):
        blocks = module if isinstance(module, nn.ModuleList) else [module]
        for number, block in enumerate(blocks, start=1):
            places.append((stage, number, block.scale.item() if isinstance(block, ScaledBlock) else 1.0))
    return places


def _view(stage: int, block: int, scale: float, maps: BlockMaps) -> BlockView:
    received = maps.received()
    return BlockView(
        stage=stage,
        block=block,
        prior=maps.prior.cpu().numpy(),
        spatial=None if maps.spatial is None else maps.spatial.cpu().numpy(),
        received=None if received is None else received.cpu().numpy(),
        fusion=dict(zip(BRANCHES, maps.fusion.tolist(), strict=False)),
        scale=scale,
    )
