"""All models behind one function. `bgpanet/catalogue.py` tells of them without importing torch."""

import difflib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from bgpanet.errors import InvalidInput, Problem
from bgpanet.models.bgpanet import BGPANet
from bgpanet.models.swin import BACKBONES, Size, build_swin

BGPA_OPTIONS = {"placement", "window_size", "reduction", "embedding_ratio", "spatial_statistics"}


def _bgpanet(size: Size, num_classes: int, **options: Any) -> nn.Module:
    return BGPANet(num_classes, size=size, **options)


def _swin(size: Size, num_classes: int) -> nn.Module:
    return build_swin(size, num_classes)


_SIZES: dict[str, Size] = {"": "base", "_s": "small", "_t": "tiny", "_micro": "micro"}
BUILDERS: dict[str, tuple[Callable[..., nn.Module], set[str], Size]] = {
    **{f"bgpanet{suffix}": (partial(_bgpanet, size), BGPA_OPTIONS, size) for suffix, size in _SIZES.items()},
    **{f"swin{suffix or '_b'}": (partial(_swin, size), set(), size) for suffix, size in _SIZES.items()},
}
"""Name: how it is built, the options that it takes, the backbone whose ImageNet weights fit it."""


def build_model(name: str, num_classes: int, weights: str | None = None, **options: Any) -> nn.Module:
    """A network that maps (B, 3, H, W) to (B, K).

    weights: None for random ones, "imagenet" for torchvision's of the backbone, or the path of a `.safetensors` or
    `.pth` file. A head for another number of classes is left out of what is loaded.

    Raises:
        InvalidInput: unknown name or option, or weights that can't be had or do not fit; with all problems.
    """
    if name not in BUILDERS:
        near = difflib.get_close_matches(name, BUILDERS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise InvalidInput.one("model", f"unknown model {name!r}{hint} Known: {', '.join(BUILDERS)}")
    build, known, size = BUILDERS[name]
    if unknown := sorted(options.keys() - known):
        raise InvalidInput(Problem(f"model.{option}", f"is no option of {name}") for option in unknown)
    model = build(num_classes, **options)
    if weights is not None:
        backbone_only = weights == "imagenet"
        state = _imagenet(name, size) if backbone_only else _from_file(Path(weights))
        _load(model, state, weights, backbone_only)
    return model


def _imagenet(name: str, size: Size) -> Mapping[str, Tensor]:
    enum = BACKBONES[size].weights
    if enum is None:
        raise InvalidInput.one("model.weights", f"there are no ImageNet weights for {name}; train it from null")
    try:
        state: Mapping[str, Tensor] = enum.get_state_dict(progress=False, check_hash=True)
    except (URLError, OSError, RuntimeError) as error:
        cache = Path(torch.hub.get_dir()) / "checkpoints" / enum.url.rpartition("/")[2]
        raise InvalidInput.one(
            "model.weights",
            f"ImageNet weights can't be downloaded here ({error}); put the file at {cache}, or name a local file",
        ) from None
    return state


def _from_file(path: Path) -> Mapping[str, Tensor]:
    """Tensors of a file; nothing in it is executed."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError) as error:
        raise InvalidInput.one("model.weights", f"{path} can't be read: {error}") from None
    except Exception as error:
        raise InvalidInput.one("model.weights", f"{path} holds more than tensors and is not loaded: {error}") from None
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InvalidInput.one("model.weights", f"{path} must hold a mapping from names to tensors")
    return state


def _load(model: nn.Module, state: Mapping[str, Tensor], source: str, backbone_only: bool) -> None:
    own = model.state_dict()
    head = {name for name in ("head.weight", "head.bias") if name in state and state[name].shape != own[name].shape}
    state = {name: value for name, value in state.items() if name not in head}
    new = {name for name in own if backbone_only and name.startswith("bgpa.")}
    problems = [Problem(source, f"lacks {name}") for name in sorted(own.keys() - state.keys() - head - new)]
    problems += [Problem(source, f"has {name}, which the model has not") for name in sorted(state.keys() - own.keys())]
    problems += [
        Problem(source, f"{name} has the shape {tuple(state[name].shape)}, not {tuple(own[name].shape)}")
        for name in sorted(own.keys() & state.keys())
        if own[name].shape != state[name].shape and own[name].numel() != state[name].numel()
    ]
    if problems:
        raise InvalidInput(problems)
    model.load_state_dict(state, strict=False)
