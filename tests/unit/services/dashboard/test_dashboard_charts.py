"""Curves as data."""

import json
from dataclasses import asdict
from typing import Any

from services.dashboard.charts import MOST_POINTS, fold_charts, training_charts


def _series(*values: float, per: int = 1) -> list[dict[str, Any]]:
    return [{"step": n * per, "epoch": n, "value": value} for n, value in enumerate(values, start=1)]


def test_curves_of_which_there_is_nothing_are_left_out() -> None:
    assert training_charts({}) == []
    assert [chart.id for chart in training_charts({"learning_rate": _series(0.1)})] == ["rate"]
    assert fold_charts({"fold 0": {}}) == []


def test_a_long_curve_is_thinned_and_keeps_its_last_point() -> None:
    values = [float(n) for n in range(1, 12_346)]
    line = training_charts({"train_loss": _series(*values)})[0].lines[0]
    assert len(line.x) <= MOST_POINTS
    assert (line.x[-1], line.y[-1]) == (12_345, 12_345.0)
    assert line.x == [int(y or 0) for y in line.y]
    assert len({b - a for a, b in zip(line.x, line.x[1:], strict=False)}) == 1


def test_a_short_curve_is_whole() -> None:
    line = training_charts({"train_loss": _series(3.0, 2.0, 1.0)})[0].lines[0]
    assert (line.x, line.y) == ([1, 2, 3], [3.0, 2.0, 1.0])


def test_what_is_not_finite_is_a_gap() -> None:
    chart = training_charts({"train_loss": _series(1.0, float("inf"), float("nan"))})[0]
    assert chart.lines[0].y == [1.0, None, None]
    assert json.dumps(asdict(chart), allow_nan=False)
    assert "1 at step 1" in chart.note
    assert training_charts({"train_loss": _series(float("inf"))})[0].note == "training: no finite value"


def test_the_note_tells_the_last_and_the_best_value() -> None:
    series = {"validation_balanced_accuracy": _series(0.2, 0.6, 0.5, per=10), "validation_loss": _series(2.0, 1.0, 1.5)}
    accuracy, loss = training_charts(series, kept_step=20)
    assert accuracy.note == "balanced accuracy: 0.5 at step 30, best 0.6 at step 20"
    assert loss.note == "validation: 1.5 at step 3, best 1 at step 2"
    assert accuracy.kept_step == loss.kept_step == 20


def test_folds_share_a_chart_and_their_best_values_are_told() -> None:
    folds = {f"fold {n}": {"validation_balanced_accuracy": _series(0.3, 0.5 + n / 10, 0.4)} for n in range(3)}
    (chart,) = fold_charts(folds)
    assert [line.name for line in chart.lines] == ["fold 0", "fold 1", "fold 2"]
    assert chart.note == "best of each fold: 0.5 to 0.7"
