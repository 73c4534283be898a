"""Figures of parts of the patients."""

import numpy as np
import pytest
import sklearn.metrics as reference

from bgpanet.evaluation.subgroups import age_band, subgroup_figures


@pytest.mark.parametrize(
    ("text", "band"),
    [("0", "under 30"), ("29.9", "under 30"), ("30", "30 to 49"), ("50.0", "50 to 69"), ("85", "70 and over"),
     ("", "unknown"), ("unknown", "unknown"), ("nan", "unknown"), ("-3", "unknown")],
)  # fmt: skip
def test_ages_are_put_into_bands(text: str, band: str) -> None:
    assert age_band(text) == band


def test_each_part_has_its_own_figures_and_all_images_are_in_one() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(3, size=90)
    p = rng.dirichlet(np.ones(3), size=90) + 0.5 * np.eye(3)[y]
    p /= p.sum(axis=1, keepdims=True)
    groups = [f"L{n // 2}" for n in range(90)]
    sexes = ["female" if n % 3 else "male" for n in range(90)]
    attributes = [{"sex": sex, "age": str(10 + n)} for n, sex in enumerate(sexes)]
    found = subgroup_figures(y, p, groups, attributes, resamples=100)
    assert list(found) == ["age", "sex"]
    assert [(row["part"], row["images"]) for row in found["sex"]] == [("female", 60), ("male", 30)]
    assert sum(row["images"] for row in found["age"]) == 90
    chosen = np.array(sexes) == "male"
    row = found["sex"][1]
    said = p[chosen].argmax(axis=1)
    assert row["accuracy"] == pytest.approx((said == y[chosen]).mean())
    assert row["balanced_accuracy"] == pytest.approx(reference.balanced_accuracy_score(y[chosen], said))
    assert row["intervals"].keys() == {"accuracy", "balanced_accuracy", "macro_f1"}


def test_a_part_of_one_lesion_has_no_interval() -> None:
    p = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    found = subgroup_figures([0, 1, 0], p, ["a", "b", "c"], [{"sex": "male"}, {"sex": "male"}, {"sex": "female"}], 20)
    assert found["sex"][1]["intervals"] == {}
    assert found["sex"][1]["accuracy"] == 1
