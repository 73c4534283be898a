"""Forms made from specs, and specs made from forms."""

from typing import Any, get_args

import pytest

from bgpanet.specs import SPECS, Kind, parse_spec
from services.dashboard.forms import Field, groups_of, read_spec

KINDS: tuple[str, ...] = get_args(Kind)
NEEDED: dict[str, dict[str, Any]] = {
    "study": {
        "variants": [{"name": "a", "set": {}}, {"name": "b", "set": {"loss": {"schedule": "focal"}}}],
        "reference": "a",
    },
    **{kind: {"model": "some-job"} for kind in ("predict", "evaluate", "explain")},
}


def _fields(kind: str, spec: dict[str, Any]) -> dict[str, Field]:
    return {one.name: one for group in groups_of(kind, spec) for one in group.fields}


def _form(kind: str, spec: dict[str, Any]) -> dict[str, str]:
    return {name: one.value for name, one in _fields(kind, spec).items()}


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_form_shows_of_a_stored_spec_is_that_spec(kind: str) -> None:
    """A clone without changes asks for the same."""
    changed: dict[str, Any] = {"resources": {"device": "gpu", "labels": ["room=2", "fast"], "memory_gb": 11.5}}
    if "training" in SPECS[kind].model_fields:
        changed["training"] = {"epochs": 7, "learning_rate": 3e-05, "warmup_epochs": 0.0, "compile": True, "seed": 9}
        changed |= {"subset": {"max_groups_per_class": 3}, "model": {"name": "bgpanet_micro"}, "image_size": 64}
    whole = parse_spec(kind, {**NEEDED.get(kind, {}), **changed})
    stored = whole.model_dump(mode="json")
    assert parse_spec(kind, read_spec(kind, _form(kind, stored))) == whole


@pytest.mark.parametrize("kind", KINDS)
def test_an_untouched_form_asks_for_nothing_but_presets(kind: str) -> None:
    assert read_spec(kind, _form(kind, {})) == {}
    assert read_spec(kind, {}) == {}


def test_every_field_of_a_training_has_its_place_its_preset_and_what_it_may_be() -> None:
    fields = _fields("train", {})
    assert "spec.data.path" not in fields
    epochs = fields["spec.training.epochs"]
    assert (epochs.kind, epochs.value, epochs.rules) == ("number", "180", "at least 1, at most 100000, preset 180")
    assert fields["spec.training.monitor"].choices == ("balanced_accuracy", "loss")
    assert fields["spec.training.compile"].choices == ("no", "yes")
    assert fields["spec.model.placement"].choices == ("", "stage", "block")
    assert "bgpanet_micro" in fields["spec.model.name"].choices
    assert fields["spec.split.unit"].help.startswith("lesion: no lesion on both sides")


def test_what_cannot_be_read_stays_as_it_is_for_the_service_to_refuse() -> None:
    form = {"spec.training.epochs": "many", "spec.training.seed": " 4 ", "spec.resources.labels": "a, b"}
    assert read_spec("train", form) == {"training": {"epochs": "many", "seed": 4}, "resources": {"labels": ["a", "b"]}}
    assert read_spec("study", {"spec.variants": "[1"}) == {"variants": "[1"}


def test_what_may_be_empty_is_null_and_what_may_not_is_left_out() -> None:
    form = {"spec.training.epochs": "", "spec.model.name": ""}
    assert read_spec("train", form) == {}
