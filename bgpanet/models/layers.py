"""The depth of a network's parameters, for training parts of it differently."""

import re
from collections.abc import Sequence

from torch import nn

# What a layer is called in Swin and ConvNeXt, VGG and MobileNet, DenseNet, ResNet, ViT.
_LAYER = re.compile(
    r"features\.denseblock\d+\.denselayer\d+|features\.\d+(?:\.\d+(?=\.))?|features\.\w+|layer\d+\.\d+"
    r"|encoder\.layers\.\w+"
)


def depths(model: nn.Module, top: Sequence[str]) -> dict[str, int]:
    """Of each parameter, by name: its layer, counted from the input, 0 the stem.

    What begins with one of `top` (the classifier, modules that were not pretrained) and everything behind the last
    layer, such as a last norm, is the last layer of all.
    """
    found: dict[str, int] = {}
    layers: list[str] = []
    names = [name for name, _ in model.named_parameters()]
    for name in names:
        match = _LAYER.match(name)
        if match is not None and not name.startswith(tuple(top)) and match[0] not in layers:
            layers.append(match[0])
    seen = False
    for name in names:
        match = _LAYER.match(name)
        if name.startswith(tuple(top)):
            found[name] = len(layers) + 1
        elif match is not None:
            seen = True
            found[name] = layers.index(match[0]) + 1
        else:
            found[name] = len(layers) + 1 if seen else 0
    return found
