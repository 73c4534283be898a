"""Temperature scaling and the reliability diagram."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.special import softmax

from bgpanet.evaluation.calibration import fit_temperature, reliability, scaled
from bgpanet.evaluation.metrics import classification_metrics

Array = npt.NDArray[Any]


def drawn(temperature: float, n: int = 20_000) -> tuple[Array, Array]:
    """Labels that follow softmax(z / temperature), and the net's own softmax(z): too sure where temperature > 1."""
    rng = np.random.default_rng(0)
    z = rng.normal(0, 2, (n, 4))
    truth = softmax(z / temperature, axis=1)
    y = (truth.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    return y, softmax(z, axis=1)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_that_was_drawn_with_is_found_and_mends_calibration(temperature: float) -> None:
    y, p = drawn(temperature)
    found = fit_temperature(y, p)
    assert found == pytest.approx(temperature, rel=0.03)
    after = classification_metrics(y, scaled(p, found))
    assert after["ece"] < 0.015
    assert after["nll"] <= classification_metrics(y, p)["nll"]


def test_no_other_temperature_is_better() -> None:
    y, p = drawn(1.7, 500)
    found = fit_temperature(y, p)
    best = classification_metrics(y, scaled(p, found))["nll"]
    for other in np.geomspace(0.05, 20, 200):
        assert classification_metrics(y, scaled(p, other))["nll"] >= best - 1e-9


def test_scaling_divides_the_logits_and_changes_no_ranking() -> None:
    rng = np.random.default_rng(1)
    z = rng.normal(0, 3, (50, 7))
    np.testing.assert_allclose(scaled(softmax(z, axis=1), 2.0), softmax(z / 2, axis=1), atol=1e-12)
    assert (scaled(softmax(z, axis=1), 5.0).argmax(axis=1) == z.argmax(axis=1)).all()
    np.testing.assert_allclose(scaled(softmax(z, axis=1), 1.0), softmax(z, axis=1), atol=1e-12)


def test_certain_and_missing_rows_stay_what_they_are() -> None:
    p = np.array([[1.0, 0.0], [np.nan, np.nan]])
    made = scaled(p, 1.5)
    assert made[0].tolist() == pytest.approx([1.0, 0.0], abs=1e-100)
    assert np.isnan(made[1]).all()


def test_a_reliability_diagram_is_counted_image_by_image() -> None:
    y, p = drawn(2.0, 400)
    rows = reliability(y, p)
    assert sum(row["images"] for row in rows) == 400
    top, right = p.max(axis=1), p.argmax(axis=1) == y
    for row in rows:
        inside = (top > row["low"] + 1e-12) & (top <= row["high"] + 1e-12)
        assert row["images"] == inside.sum()
        if inside.any():
            assert row["confidence"] == pytest.approx(top[inside].mean())
            assert row["accuracy"] == pytest.approx(right[inside].mean())
        else:
            assert (row["confidence"], row["accuracy"]) == (None, None)
    ece = sum(row["images"] * abs(row["accuracy"] - row["confidence"]) for row in rows if row["images"]) / 400
    assert ece == pytest.approx(classification_metrics(y, p)["ece"])
