"""A spec beside its defaults."""

from typing import Any

from bgpanet.report.recipe import settings
from bgpanet.specs import StudySpec, parse_spec


def told(kind: str, values: dict[str, Any]) -> dict[str, tuple[str, str, bool]]:
    spec = parse_spec(kind, values).model_dump(mode="json", exclude={"data", "resources"})
    return {setting.name: (setting.value, setting.default, setting.is_changed) for setting in settings(spec)}


def test_every_setting_stands_beside_its_default_and_what_differs_is_marked() -> None:
    found = told("train", {"model": "swin_micro", "training": {"learning_rate": 0.001, "compile": True}})
    assert found["training.learning_rate"] == ("0.001", "0.0001", True)
    assert found["training.compile"] == ("yes", "no", True)
    assert found["training.epochs"] == ("180", "180", False)
    assert found["model.name"] == ("swin_micro", "bgpanet", True)
    assert found["split.fold"] == ("0", "0", False)
    assert found["model.weights"] == ("not set", "not set", False)


def test_a_default_spec_differs_in_nothing() -> None:
    assert not any(changed for *_, changed in told("cross_validate", {}).values())


def test_only_options_of_the_loss_that_was_used_are_told() -> None:
    found = told("train", {"loss": "logit_adjusted"})
    assert {name for name in found if name.startswith("loss.")} == {"loss.name", "loss.tau"}
    assert found["loss.tau"] == ("1", "1", False)


def test_a_study_tells_what_its_variants_share() -> None:
    variants = [{"name": "a"}, {"name": "b", "set": {"model": "swin_micro"}}]
    values = {"model": "bgpanet_micro", "variants": variants, "reference": "a"}
    assert isinstance(parse_spec("study", values), StudySpec)
    found = told("study", values)
    assert found["model.name"] == ("bgpanet_micro", "bgpanet", True)
    assert not any(name.startswith("variants") for name in found)
