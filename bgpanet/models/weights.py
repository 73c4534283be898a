"""Initial weights: torchvision's of ImageNet, or a local file. Nothing in a file is executed."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from bgpanet.errors import InvalidInput, Problem


def imagenet_weights(name: str, enum: Any) -> Mapping[str, Tensor]:
    """Torchvision's weights of a model, out of its cache or downloaded and checked. Raises InvalidInput."""
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


def file_weights(path: Path, sha256: str | None = None) -> Mapping[str, Tensor]:
    """The tensors of a `.safetensors` file, or of one that torch saved. Raises InvalidInput."""
    try:
        if sha256 is not None and (found := file_digest(path)) != sha256:
            raise InvalidInput.one("model.weights_sha256", f"{path} has the digest {found}; it is not loaded")
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError) as error:
        raise InvalidInput.one("model.weights", f"{path} can't be read: {error}") from None
    except InvalidInput:
        raise
    except Exception as error:
        raise InvalidInput.one("model.weights", f"{path} holds more than tensors and is not loaded: {error}") from None
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InvalidInput.one("model.weights", f"{path} must hold a mapping from names to tensors")
    return state


def file_digest(path: Path) -> str:
    """SHA-256, hex. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_weights(model: nn.Module, state: Mapping[str, Tensor], source: str, head: str, new: tuple[str, ...]) -> None:
    """Loads all that fits: a classifier `head` of other classes is left out, and so is what begins with one of `new`.

    Raises:
        InvalidInput: with everything else that is missing, too much, or of another shape.
    """
    own = model.state_dict()
    ends = {f"{head}.weight", f"{head}.bias"}
    other_head = {name for name in ends & state.keys() & own.keys() if state[name].shape != own[name].shape}
    state = {name: value for name, value in state.items() if name not in other_head}
    absent = {name for name in own if name.startswith(new)} if new else set()
    missing = own.keys() - state.keys() - other_head - absent
    problems = [Problem(source, f"lacks {name}") for name in sorted(missing)]
    problems += [Problem(source, f"has {name}, which the model has not") for name in sorted(state.keys() - own.keys())]
    problems += [
        Problem(source, f"{name} has the shape {tuple(state[name].shape)}, not {tuple(own[name].shape)}")
        for name in sorted(own.keys() & state.keys())
        if own[name].shape != state[name].shape and own[name].numel() != state[name].numel()
    ]
    if problems:
        raise InvalidInput(problems)
    model.load_state_dict(state, strict=False)
