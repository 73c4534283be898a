"""Grad-CAM (Selvaraju et al., ICCV 2017) for every model of the zoo, through the library `grad-cam`.

Shapes: B images of H x W pixels; features of h x w positions, C channels, or of T = 1 + h w tokens of which the first
is the class token.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from bgpanet.errors import InvalidInput
from bgpanet.models.swin import STAGES
from bgpanet.models.zoo import BUILDERS

Layout = Literal["channels_last", "tokens", "channels_first"]


@dataclass(frozen=True)
class Target:
    """The layer whose output is explained, by its name in the model, and how that output is laid out."""

    layer: str
    layout: Layout


_SWIN = ("bgpanet", "swin_")
TARGETS: dict[str, Target] = {
    **{name: Target("norm", "channels_last") for name in BUILDERS if name.startswith(_SWIN)},
    # Of the last block's output only the class token reaches the head; its input to attention is the last that counts.
    "vit_b_16": Target("encoder.layers.encoder_layer_11.ln_1", "tokens"),
    "resnet101": Target("layer4", "channels_first"),
    "vgg16": Target("features.29", "channels_first"),
    "mobilenet_v3_small": Target("features.12", "channels_first"),
    "mobilenet_v2": Target("features.18", "channels_first"),
    "densenet121": Target("features.norm5", "channels_first"),
    "convnext_base": Target("features.7", "channels_first"),
}
"""The last layer that still has positions, of every model."""


def grad_cam(
    model: nn.Module, name: str, images: Tensor, classes: Sequence[int] | None = None, stage: int | None = None
) -> np.ndarray:
    """Where the evidence for a class lies: (B, H, W) float32 in [0, 1], each map scaled by its own largest value.

    relu(sum_c a_c A_c), enlarged linearly from h x w to H x W, A_c channel c of the target layer's output and a_c
    the mean over positions of the class logit's derivative by it. A map that is 0 everywhere says that nothing there
    speaks for the class.

    images: (B, 3, H, W), normalised. classes: B class numbers, None for the predicted ones. stage: of Swin and all
    that is built on it, 1 (fine) to 4 (coarse): explains the output of that stage, its BGPA block included, instead
    of the last layer's. Computed in fp32 in evaluation mode; the model is left as it was found, gradients included.

    Raises:
        InvalidInput: a class or stage that the model has not.
    """
    from pytorch_grad_cam import GradCAM  # matplotlib and OpenCV come with it, which takes seconds
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    head: Any = model.get_submodule(BUILDERS[name].head)
    if classes is not None and (len(classes) != len(images) or not all(0 <= k < head.out_features for k in classes)):
        raise InvalidInput.one("classes", f"must be {len(images)} class numbers from 0 to {head.out_features - 1}")
    target = target_of(model, name, stage)
    layer = model.get_submodule(target.layer)
    reshape = RESHAPES[target.layout]
    chosen = None if classes is None else [ClassifierOutputTarget(int(k)) for k in classes]
    device = next(model.parameters()).device
    with _as_found(model), _exact(device), _cut_below(layer):
        cam = GradCAM(model, [layer], reshape_transform=reshape)
        try:
            return np.asarray(cam(images.to(device).float(), chosen), dtype=np.float32)
        finally:
            cam.activations_and_grads.release()


def target_of(model: nn.Module, name: str, stage: int | None = None) -> Target:
    """The target layer of a model of the zoo. Raises InvalidInput for a stage that it has not."""
    if stage is None:
        return TARGETS[name]
    if not name.startswith(_SWIN) or not 1 <= stage <= len(STAGES):
        raise InvalidInput.one("stage", f"{name} has no stage {stage}; Swin and what is built on it have 1 to 4")
    added: Any = getattr(model, "bgpa", getattr(model, "attention", None))
    if added is None:
        return Target(f"features.{STAGES[stage - 1]}", "channels_last")
    kind = "bgpa" if hasattr(model, "bgpa") else "attention"
    blocks = added[stage - 1]
    last = f".{len(blocks) - 1}" if isinstance(blocks, nn.ModuleList) else ""
    return Target(f"{kind}.{stage - 1}{last}", "channels_last")


def _tokens_to_maps(features_BTC: Tensor) -> Tensor:  # noqa: N803
    """(B, 1 + h h, C) to (B, C, h, h): of a square image."""
    patches = features_BTC[:, 1:]
    side = round(patches.shape[1] ** 0.5)
    return patches.transpose(1, 2).reshape(len(patches), -1, side, side).clone()


# What follows the target may change it in place (DenseNet does), so that the library must be handed a copy.
RESHAPES: dict[Layout, Callable[[Tensor], Tensor]] = {
    "channels_last": lambda features_BHWC: features_BHWC.permute(0, 3, 1, 2).clone(),  # noqa: N803
    "tokens": _tokens_to_maps,
    "channels_first": lambda features_BCHW: features_BCHW.clone(),  # noqa: N803
}


@contextmanager
def _as_found(model: nn.Module) -> Iterator[None]:
    """Puts back what the library changes: modes and gradients. Within, no weight gathers a gradient."""
    modes = [(module, module.training) for module in model.modules()]
    weights = [(weight, weight.requires_grad, weight.grad) for weight in model.parameters()]
    try:
        for weight, _, _ in weights:
            weight.requires_grad_(False)
        yield
    finally:
        for module, training in modes:
            module.training = training
        for weight, requires_grad, gradient in weights:
            weight.requires_grad_(requires_grad)
            weight.grad = gradient


@contextmanager
def _exact(device: torch.device) -> Iterator[None]:
    """Gradients in fp32, all 24 bits of it, whatever the caller is in the middle of."""
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = products.allow_tf32, convolutions.allow_tf32
    products.allow_tf32 = convolutions.allow_tf32 = False
    try:
        with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device.type, enabled=False):
            yield
    finally:
        products.allow_tf32, convolutions.allow_tf32 = before


@contextmanager
def _cut_below(layer: nn.Module) -> Iterator[None]:
    """Within, gradients go down to the layer's output and no further: nothing below is asked for."""

    def cut(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        return output.detach().requires_grad_().clone()

    hook = layer.register_forward_hook(cut)
    try:
        yield
    finally:
        hook.remove()
