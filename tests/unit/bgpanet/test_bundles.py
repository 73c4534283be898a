import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from bgpanet.bundles import CARD, WEIGHTS, ModelCard, load_bundle, save_bundle
from bgpanet.errors import InvalidInput
from bgpanet.models import build_model
from bgpanet.specs import ModelSpec

CARD_OF = {"image_size": 64, "dataset_digest": "d", "split_digest": "s", "synthetic": False, "kept": {"epoch": 3}}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    model = build_model("bgpanet_micro", 3, placement="block")
    card = ModelCard(model=ModelSpec(name="bgpanet_micro", placement="block"), classes=("a", "b", "c"), **CARD_OF)
    save_bundle(tmp_path, card, model.state_dict())
    return tmp_path


def test_a_model_comes_back_as_it_was(bundle: Path) -> None:
    model, card = load_bundle(bundle)
    assert (card.classes, card.kept, card.model.placement) == (("a", "b", "c"), {"epoch": 3}, "block")
    for name, value in load_file(bundle / WEIGHTS).items():
        assert torch.equal(model.state_dict()[name], value)


def test_weights_that_do_not_fit_are_refused_with_every_reason(bundle: Path) -> None:
    weights = load_file(bundle / WEIGHTS)
    del weights["norm.weight"]
    weights |= {"extra": torch.ones(1), "norm.bias": torch.ones(2)}
    weights["head.bias"] = torch.full_like(weights["head.bias"], float("nan"))
    save_file(weights, bundle / WEIGHTS)
    with pytest.raises(InvalidInput) as caught:
        load_bundle(bundle)
    told = str(caught.value)
    for part in ("lacks norm.weight", "has extra", "norm.bias has the shape (2,)", "head.bias has values that are not"):
        assert part in told


@pytest.mark.parametrize(
    ("change", "told"),
    [({"model": {"name": "nothing"}}, "unknown model"), ({"more": 1}, "unknown field"), ({"version": 2}, "version")],
)
def test_a_card_of_another_kind_is_refused(bundle: Path, change: dict[str, object], told: str) -> None:
    card = json.loads((bundle / CARD).read_text())
    (bundle / CARD).write_text(json.dumps({**card, **change}))
    with pytest.raises(InvalidInput, match=told):
        load_bundle(bundle)


@pytest.mark.parametrize("name", [CARD, WEIGHTS])
def test_a_missing_or_cut_file_is_refused(bundle: Path, name: str) -> None:
    content = (bundle / name).read_bytes()
    (bundle / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(InvalidInput):
        load_bundle(bundle)
    (bundle / name).unlink()
    with pytest.raises(InvalidInput, match="is no model that can be read"):
        load_bundle(bundle)
