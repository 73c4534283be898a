"""Curves as data."""

import json
from dataclasses import asdict

from services.curves import MOST_POINTS, Point, extremes
from services.dashboard.charts import LEAST_POINTS, MOST_DRAWN, points_each, run_charts, training_charts


def _series(*values: float, per: int = 1) -> list[Point]:
    return [Point(n * per, n, value) for n, value in enumerate(values, start=1)]


def test_curves_of_which_there_is_nothing_are_left_out() -> None:
    assert training_charts({}) == []
    assert [chart.id for chart in training_charts({"learning_rate": _series(0.1)})] == ["rate"]
    assert run_charts({"fold 0": {}}) == []


def test_a_smoothed_curve_stands_over_what_it_is_made_of() -> None:
    series = {"train_loss": _series(3.0, 1.0), "learning_rate": _series(0.1, 0.2)}
    loss, rate = training_charts(series, smooth={"train_loss": _series(3.0, 2.0)})
    assert [(line.name, line.faint, line.y) for line in loss.lines] == [
        ("training, as it is", True, [3.0, 1.0]),
        ("training", False, [3.0, 2.0]),
    ]
    assert loss.note == "training: 1 at step 2"  # figures that are told are never smoothed
    assert [line.faint for line in rate.lines] == [False]


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
    loss, accuracy = training_charts(series, kept_step=20)
    assert accuracy.note == "balanced accuracy: 0.5 at step 30, best 0.6 at step 20"
    assert loss.note == "validation: 1.5 at step 3, best 1 at step 2"
    assert accuracy.kept_step == loss.kept_step == 20


def test_folds_share_a_chart_and_their_best_values_are_told() -> None:
    folds = {f"fold {n}": {"validation_balanced_accuracy": _series(0.3, 0.5 + n / 10, 0.4)} for n in range(3)}
    (chart,) = run_charts(folds)
    assert [line.name for line in chart.lines] == ["fold 0", "fold 1", "fold 2"]
    assert chart.note == "best of each fold: 0.5 to 0.7"


def test_however_many_lines_there_are_together_they_stay_few_points() -> None:
    assert points_each(1) == MOST_POINTS
    assert [points_each(lines) for lines in (8, 10, 40, 10_000)] == [MOST_POINTS, 800, 200, LEAST_POINTS]
    assert all(lines * points_each(lines) <= MOST_DRAWN for lines in range(8, MOST_DRAWN // LEAST_POINTS))


def test_the_answer_for_twenty_long_runs_is_small() -> None:
    points = points_each(40)
    run = list(extremes(_series(*(1 / n for n in range(1, 5001)), per=123), 5000, points))
    runs = {f"job {n}": {"validation_loss": run, "validation_balanced_accuracy": run} for n in range(20)}
    assert len(json.dumps([asdict(chart) for chart in run_charts(runs, "job")])) < 300_000
