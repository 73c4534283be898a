import json
from pathlib import Path
from typing import Any

import pytest

from bgpanet.errors import InvalidInput
from bgpanet.specs import (
    CrossValidateSpec,
    PredictSpec,
    TrainSpec,
    half_at_once,
    limited_at_once,
    parse_spec,
    read_spec,
)


def fields(error: InvalidInput) -> set[str]:
    return {problem.where for problem in error.problems}


def test_an_empty_spec_is_the_articles_recipe() -> None:
    spec = parse_spec("train", {})
    assert isinstance(spec, TrainSpec)
    training = spec.training
    assert (training.epochs, training.learning_rate, training.weight_decay) == (180, 1e-4, 0.05)
    assert (training.warmup, training.patience, spec.split.folds) == (5.0, 20, 5)
    assert (spec.model.name, spec.input_size, spec.loss.schedule, spec.loss.gamma) == ("bgpanet", 224, "linear", 2.0)


def test_all_problems_are_told_at_once_each_at_its_field() -> None:
    values = {
        "model": {"name": "swin_b", "placement": "stage"},
        "training": {"epochs": 0, "momentum": 0.9, "learning_rate": "fast"},
        "split": {"fold": 7},
        "colour": "red",
    }
    with pytest.raises(InvalidInput) as caught:
        parse_spec("train", values)
    assert fields(caught.value) == {
        "spec.model",
        "spec.training.epochs",
        "spec.training.momentum",
        "spec.training.learning_rate",
        "spec.split",
        "spec.colour",
    }


def test_an_unknown_model_is_answered_with_the_nearest_one() -> None:
    with pytest.raises(InvalidInput, match="did you mean 'bgpanet_micro'"):
        parse_spec("train", {"model": "bgpanet_mikro"})


@pytest.mark.parametrize(
    "values",
    [
        {"training": {"learning_rate": float("nan")}},
        {"training": {"learning_rate": float("inf")}},
        {"training": {"epochs": True}},
        {"training": {"epochs": 3.5}},
        {"training": {"epochs": "3"}},
        {"training": {"epochs": 2, "warmup_epochs": 2}},
        {"training": {"learning_rate": 1e-7}},
        {"split": {"folds": 1}},
        {"subset": {"max_groups_per_class": 0}},
        {"loss": {"gamma": -1}},
    ],
)
def test_nonsense_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        parse_spec("train", values)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(InvalidInput, match="cross_validate"):
        parse_spec("trane", {})


def test_a_fold_of_a_cross_validation_is_a_training_on_that_fold() -> None:
    whole = parse_spec("cross_validate", {"split": {"folds": 3, "seed": 4}, "training": {"epochs": 7}})
    assert isinstance(whole, CrossValidateSpec)
    assert whole.fold(2) == parse_spec(
        "train", {"split": {"folds": 3, "seed": 4, "fold": 2}, "training": {"epochs": 7}}
    )


def test_a_spec_survives_json() -> None:
    spec = parse_spec("train", {"model": "bgpanet_t", "subset": {"max_groups_per_class": 5}})
    assert parse_spec("train", json.loads(spec.model_dump_json())) == spec


def test_predicting_needs_a_model() -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_spec("predict", {})
    assert fields(caught.value) == {"spec.model"}
    assert isinstance(parse_spec("predict", {"model": "some-id"}), PredictSpec)


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [", "\x00", "training: {epochs: 0}"])
def test_a_file_that_holds_no_spec_is_refused_with_its_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(text)
    with pytest.raises(InvalidInput) as caught:
        read_spec("train", path)
    assert "spec.yaml" in str(caught.value)


@pytest.mark.parametrize("number", ["1e-3", "0.001", "1.0e-3", "1E-3"])
def test_a_number_in_a_file_may_be_written_in_every_way(tmp_path: Path, number: str) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(f"training: {{learning_rate: {number}}}\n")
    spec = read_spec("train", path)
    assert isinstance(spec, TrainSpec)
    assert spec.training.learning_rate == 0.001


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot be read"):
        read_spec("train", tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("kind", "values", "half"),
    [
        ("train", {"training": {"batch_size": 32}}, 16),
        ("train", {"training": {"batch_size": 32, "micro_batch_size": 5}}, 2),
        ("train", {"training": {"batch_size": 1}}, None),
        ("train", {"model": "resnet101"}, None),
        ("predict", {"model": "m", "batch_size": 7}, 3),
        ("cross_validate", {}, None),
    ],
)
def test_half_the_images_at_once_is_the_same_training_or_none(
    kind: str, values: dict[str, Any], half: int | None
) -> None:
    spec = parse_spec(kind, values)
    assert half_at_once(spec) == half
    if half is None:
        return
    less = limited_at_once(spec, half)
    assert parse_spec(kind, less.model_dump(mode="json")) == less
    assert half_at_once(less) == (half // 2 or None)
    if isinstance(spec, TrainSpec) and isinstance(less, TrainSpec):
        assert less.training.batch_size == spec.training.batch_size
