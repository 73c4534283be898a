"""Initial weights: torchvision's of ImageNet, or a local file. Nothing in a file is executed."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from urllib.error import URLError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from bgpanet.errors import InvalidInput, Problem

DENSENETS_OLD_NAMES = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])(?=\.)")
"""In the published file a layer is `norm.1`, in the network `norm1`; torchvision renames it in a place of its own."""
COUNTERS = ".num_batches_tracked"
"""Files older than these buffers lack them; with a fixed momentum nothing depends on them."""


def imagenet_weights(name: str, enum: Any) -> Mapping[str, Tensor]:
    """Torchvision's weights of a model, out of its cache or downloaded, and checked by the digest in the file's name.

    Raises:
        InvalidInput: they can't be had, or the file is another one; with what to do.
    """
    if enum is None:
        raise InvalidInput.one("model.weights", f"there are no ImageNet weights for {name}; train it from null")
    path = Path(torch.hub.get_dir()) / "checkpoints" / enum.url.rpartition("/")[2]
    try:
        # Torchvision checks what it downloads, and trusts what somebody has put there.
        if path.exists() and not (found := file_digest(path)).startswith(path.stem.rpartition("-")[2]):
            told = f"{path} has the digest {found}, which does not begin as its name ends"
            raise InvalidInput.one("model.weights", f"{told}: it is damaged or another file; delete or replace it")
        state: Mapping[str, Tensor] = enum.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (URLError, OSError, RuntimeError, UnpicklingError) as error:
        raise InvalidInput.one(
            "model.weights",
            f"ImageNet weights can't be downloaded here ({error}); put the file of {enum.url} at {path}, or name a "
            "local file",
        ) from None
    return {DENSENETS_OLD_NAMES.sub(r"\1\2", key): value for key, value in state.items()}


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

    A model of the `meta` device, which has no values, is only compared.

    Raises:
        InvalidInput: with everything else that is missing, too much, or of another shape.
    """
    own = model.state_dict()
    ends = {f"{head}.weight", f"{head}.bias"}
    other_head = {name for name in ends & state.keys() & own.keys() if state[name].shape != own[name].shape}
    state = {name: value for name, value in state.items() if name not in other_head}
    absent = {name for name in own if name.startswith(new)} if new else set()
    absent |= {name for name in own if name.endswith(COUNTERS)}
    missing = own.keys() - state.keys() - other_head - absent
    problems = [Problem(source, f"lacks {name}") for name in sorted(missing)]
    problems += [Problem(source, f"has {name}, which the model has not") for name in sorted(state.keys() - own.keys())]
    problems += [
        Problem(source, f"{name} has the shape {tuple(state[name].shape)}, not {tuple(own[name].shape)}")
        for name in sorted(own.keys() & state.keys())
        if state[name].shape not in (own[name].shape, (*own[name].shape, 1, 1))  # a linear layer as a 1x1 convolution
    ]
    if problems:
        raise InvalidInput(problems)
    if not any(value.is_meta for value in own.values()):
        model.load_state_dict(state, strict=False)
