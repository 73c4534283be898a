"""A trained model as files: `model.safetensors` and `model.json`. Nothing in them can run code."""

from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from bgpanet.errors import InvalidInput, Problem
from bgpanet.models import build_model
from bgpanet.specs import ModelSpec
from bgpanet.validation import problems_of

WEIGHTS, CARD = "model.safetensors", "model.json"


class Frozen(BaseModel):
    """What was fitted on the validation part and is used as it is from then on.

    temperature: of calibration. thresholds: for each class, in the card's order, those of `operating_points`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    temperature: float
    thresholds: tuple[dict[str, float | None], ...]


class ModelCard(BaseModel):
    """What is needed to use the weights, and where they come from.

    classes: in the order of the logits. image_size: side of the square input, pixels. kept: when the weights were
    chosen and by which figure. synthetic: trained on drawn images, so of no medical meaning. frozen: None in cards of
    the first kind, which did not keep it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    version: Literal[1] = 1
    model: ModelSpec
    classes: tuple[str, ...]
    image_size: int
    dataset_digest: str
    split_digest: str
    synthetic: bool
    kept: dict[str, Any]
    frozen: Frozen | None = None


def save_bundle(folder: Path, card: ModelCard, weights: dict[str, torch.Tensor]) -> list[Path]:
    """Writes both files into `folder`. Returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, folder / WEIGHTS)
    (folder / CARD).write_text(card.model_dump_json(indent=2), encoding="utf-8")
    return [folder / WEIGHTS, folder / CARD]


def load_card(folder: Path) -> ModelCard:
    """What is told of a model. Raises InvalidInput: the file is missing or damaged."""
    try:
        return ModelCard.model_validate_json((folder / CARD).read_bytes())
    except ValidationError as error:
        raise InvalidInput(problems_of(error, CARD, ModelCard)) from None
    except OSError as error:
        raise InvalidInput.one(str(folder), f"is no model that can be read: {error}") from None


def load_bundle(folder: Path) -> tuple[nn.Module, ModelCard]:
    """The network with its weights, on the CPU, and its card.

    Raises:
        InvalidInput: a file is missing or damaged, or the weights do not fit the card, or are not finite.
    """
    card = load_card(folder)
    try:
        tensors = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise InvalidInput.one(str(folder), f"is no model that can be read: {error}") from None
    # Where the weights came from before training does not matter any more.
    model = build_model(card.model.name, num_classes=len(card.classes), weights=None, **card.model.options)
    problems = _misfits(model.state_dict(), tensors)
    if problems:
        raise InvalidInput(problems)
    model.load_state_dict(tensors)
    return model, card


def _misfits(expected: dict[str, torch.Tensor], found: dict[str, torch.Tensor]) -> list[Problem]:
    problems = [Problem(WEIGHTS, f"lacks {name}") for name in expected.keys() - found.keys()]
    problems += [Problem(WEIGHTS, f"has {name}, which the model has not") for name in found.keys() - expected.keys()]
    for name in sorted(expected.keys() & found.keys()):
        if expected[name].shape != found[name].shape:
            shapes = f"{tuple(found[name].shape)}, not {tuple(expected[name].shape)}"
            problems.append(Problem(WEIGHTS, f"{name} has the shape {shapes}"))
        elif found[name].is_floating_point() and not torch.isfinite(found[name]).all():
            problems.append(Problem(WEIGHTS, f"{name} has values that are not finite"))
    return sorted(problems, key=lambda problem: problem.what)
