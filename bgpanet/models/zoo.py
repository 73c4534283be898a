"""All models behind one function. `bgpanet/catalogue.py` tells of them without importing torch."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchvision.models import get_model, get_model_weights

from bgpanet.catalogue import BGPA_OPTIONS, unknown_model
from bgpanet.errors import InvalidInput, Problem
from bgpanet.models.bgpanet import BGPANet
from bgpanet.models.controls import ConvolutionalBlockAttention, SqueezeExcitation, SwinWithAttention
from bgpanet.models.swin import BACKBONES, Size, build_swin
from bgpanet.models.weights import file_weights, imagenet_weights, load_weights
from bgpanet.specs import ModelSpec


@dataclass(frozen=True)
class Built:
    """How a model is built from its number of classes and options.

    weights: torchvision's of ImageNet for it or its backbone, if any. head: name of the classifier's layer.
    new: what ImageNet's weights lack, by the beginning of names.
    """

    build: Callable[..., nn.Module]
    weights: Any = None
    head: str = "head"
    options: tuple[str, ...] = ()
    new: tuple[str, ...] = ()


def _bgpanet(size: Size, num_classes: int, **options: Any) -> nn.Module:
    return BGPANet(num_classes, size=size, **options)


def _swin(size: Size, num_classes: int) -> nn.Module:
    return build_swin(size, num_classes)


def _control(attention: Callable[[int], nn.Module], size: Size, num_classes: int) -> nn.Module:
    return SwinWithAttention(num_classes, size, attention)


def _torchvision(name: str, num_classes: int) -> nn.Module:
    model: nn.Module = get_model(name, weights=None, num_classes=num_classes)
    return model


_SIZES: dict[str, Size] = {"b": "base", "s": "small", "t": "tiny", "micro": "micro"}
_CONTROLS: dict[str, Callable[[int], nn.Module]] = {"se": SqueezeExcitation, "cbam": ConvolutionalBlockAttention}
_HEADS = {
    "resnet101": "fc",
    "vgg16": "classifier.6",
    "mobilenet_v3_small": "classifier.3",
    "mobilenet_v2": "classifier.1",
    "densenet121": "classifier",
    "vit_b_16": "heads.head",
    "convnext_base": "classifier.2",
}
BUILDERS: dict[str, Built] = {
    **{
        "bgpanet" if short == "b" else f"bgpanet_{short}": Built(
            partial(_bgpanet, size), BACKBONES[size].weights, options=BGPA_OPTIONS, new=("bgpa.",)
        )
        for short, size in _SIZES.items()
    },
    **{f"swin_{short}": Built(partial(_swin, size), BACKBONES[size].weights) for short, size in _SIZES.items()},
    **{
        f"swin_{short}_{name}": Built(partial(_control, block, size), BACKBONES[size].weights, new=("attention.",))
        for name, block in _CONTROLS.items()
        for short, size in _SIZES.items()
    },
    **{
        name: Built(partial(_torchvision, name), get_model_weights(name).DEFAULT, head) for name, head in _HEADS.items()
    },
}


def top_of(name: str) -> tuple[str, ...]:
    """Beginnings of the names of a model's parameters that ImageNet's weights do not fill: classifier and blocks."""
    return (BUILDERS[name].head, *BUILDERS[name].new)


def build_model(
    name: str, num_classes: int, weights: str | None = None, weights_sha256: str | None = None, **options: Any
) -> nn.Module:
    """A network that maps (B, 3, H, W) to (B, K).

    weights: None for random ones, "imagenet" for torchvision's best of the model or its backbone, or the path of a
    `.safetensors` or `.pth` file, which must have the digest `weights_sha256` if that is given. A head for another
    number of classes is left out of what is loaded.

    Raises:
        InvalidInput: unknown name or option, or weights that can't be had or do not fit; with all problems.
    """
    if name not in BUILDERS:
        raise InvalidInput.one("model", unknown_model(name))
    built = BUILDERS[name]
    if unknown := sorted(options.keys() - set(built.options)):
        raise InvalidInput(Problem(f"model.{option}", f"is no option of {name}") for option in unknown)
    model = built.build(num_classes, **options)
    if weights is not None:
        _load(model, name, weights, weights_sha256)
    return model


def check_weights(specs: Iterable[ModelSpec]) -> None:
    """Whether the weights from which these models start can be had and fit, each looked at once.

    A run asks before it reads an image: what is missing is told at once, and ImageNet's are downloaded by then.

    Raises:
        InvalidInput: as `build_model`.
    """
    for spec in dict.fromkeys(specs):
        if spec.weights is not None:
            with torch.device("meta"):
                model = BUILDERS[spec.name].build(2, **spec.options)
            _load(model, spec.name, spec.weights, spec.weights_sha256)


def _load(model: nn.Module, name: str, weights: str, weights_sha256: str | None) -> None:
    built = BUILDERS[name]
    if weights == "imagenet":
        load_weights(model, imagenet_weights(name, built.weights), weights, built.head, built.new)
    else:
        load_weights(model, file_weights(Path(weights), weights_sha256), weights, built.head, ())
