"""What is said of names that nobody knows."""

from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError

from bgpanet.validation import nearest, problems_of, unknown


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Inner(Strict):
    colour: Literal["red", "green"] = "red"
    weight: float = 1.0


class Other(Strict):
    weight: float = 1.0


class Outer(Strict):
    inner: Inner = Inner()
    others: tuple[Other, ...] = ()
    either: Inner | Other | None = None


def told(values: object, model: type[BaseModel] | None = Outer) -> dict[str, str]:
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate(values)
    return {problem.where: problem.what for problem in problems_of(caught.value, "spec", model)}


def test_an_unknown_field_is_told_with_the_nearest_of_its_place() -> None:
    assert told({"iner": {}}) == {"spec.iner": "unknown field; did you mean 'inner'?"}
    assert told({"inner": {"color": 1}}) == {"spec.inner.color": "unknown field; did you mean 'colour'?"}
    assert told({"others": [{"wieght": 1}]}) == {"spec.others.0.wieght": "unknown field; did you mean 'weight'?"}


def test_a_field_that_stands_too_high_is_told_where_it_belongs() -> None:
    told_there = "unknown field; did you mean 'either.weight' or 'inner.weight' or 'others.weight'?"
    assert set(told({"weight": 1})["spec.weight"].split(" or ")) == set(told_there.split(" or "))


def test_a_field_that_is_near_to_none_or_of_an_unknown_model_is_told_without() -> None:
    plain = "unknown field; remove it or correct its name"
    assert told({"zzz": 1}) == {"spec.zzz": plain}
    assert told({"iner": 1}, None) == {"spec.iner": plain}


def test_a_value_that_is_no_choice_is_told_with_the_nearest() -> None:
    assert told({"inner": {"colour": "grene"}})["spec.inner.colour"].endswith("; did you mean 'green'?")
    assert "did you mean" not in told({"inner": {"colour": "zzz"}})["spec.inner.colour"]
    assert "did you mean" not in told({"inner": {"colour": 3}})["spec.inner.colour"]


def test_case_does_not_matter() -> None:
    assert nearest("BGPANET", ["bgpanet", "swin"]) == "bgpanet"
    assert nearest("zzz", ["bgpanet"]) is None
    assert (
        unknown("model", "swim", ["bgpanet", "swin"])
        == "unknown model 'swim'; did you mean 'swin'? Known: bgpanet, swin"
    )
    assert unknown("model", "zzz", ["bgpanet"]) == "unknown model 'zzz'; known: bgpanet"
