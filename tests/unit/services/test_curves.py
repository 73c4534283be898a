"""A long training's figures as a chart can show them: bounded, with every extreme in place."""

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import insert

from services.curves import MOST_POINTS, Point, extremes, reduced, reduced_of, smoothed
from services.errors import NotFound
from services.tables import Metric
from services.tokens import Principal
from tests.unit.services.dashboard.full_service import Service, add_datasets, service

ADMIN = Principal("root", "admin")


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Service]:
    with service(tmp_path) as found:
        add_datasets(found)
        yield found


def _points(values: list[float]) -> list[Point]:
    return [Point(step, 1, value) for step, value in enumerate(values, start=1)]


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.floats(width=32, allow_nan=True, allow_infinity=True), max_size=300),
    st.integers(min_value=5, max_value=60),
)
def test_a_series_stays_in_bounds_and_keeps_its_ends_and_its_extremes(values: list[float], most: int) -> None:
    series = _points(values)
    found = list(extremes(series, len(series), most))
    assert len(found) <= most
    assert [point.step for point in found] == sorted({point.step for point in found})
    if series:
        assert (found[0].step, found[-1].step) == (1, len(series))
    finite = [value for value in values if math.isfinite(value)]
    if finite:
        kept = [point.value for point in found if math.isfinite(point.value)]
        assert (min(kept), max(kept)) == (min(finite), max(finite))
    assert any(not math.isfinite(value) for value in values) == any(not math.isfinite(p.value) for p in found)


def test_what_is_said_while_it_is_counted_does_not_break_the_bound() -> None:
    found = list(extremes(_points([1.0] * 5000 + [9.0] * 700), 5000, 100))
    assert len(found) <= 100
    assert found[-1] == Point(5700, 1, 9.0)


def test_a_hundred_thousand_points_of_a_job_come_as_few_and_the_spike_stays(made: Service) -> None:
    job_id = made.submit(user="ada")
    rows = [
        {"job_id": job_id, "name": "train_loss", "step": n, "epoch": n // 1000, "value": 1.0 + (n % 7) / 100}
        for n in range(1, 100_001)
    ]
    rows[61_803]["value"], rows[27_182]["value"] = 50.0, -3.0
    with made.context.database.write() as session:
        session.execute(insert(Metric), rows)
        session.execute(insert(Metric).values(job_id=job_id, name="learning_rate", step=1, epoch=0, value=0.1))
    series = reduced(made.context.database, ADMIN, job_id)
    assert len(series["train_loss"]) <= MOST_POINTS
    assert {(61_804, 50.0), (27_183, -3.0)} <= {(point.step, point.value) for point in series["train_loss"]}
    assert (series["train_loss"][0].step, series["train_loss"][-1].step) == (1, 100_000)
    assert series["learning_rate"] == [Point(1, 0, 0.1)]
    assert list(reduced(made.context.database, ADMIN, job_id, ["learning_rate"])) == ["learning_rate"]
    with pytest.raises(NotFound):
        reduced(made.context.database, Principal("bob", "researcher"), job_id)


def test_smoothing_begins_at_the_first_value_and_passes_over_gaps() -> None:
    found = [value for _, _, value in smoothed(_points([2.0, math.nan, 4.0]), 0.5)]
    assert found[0] == 2.0
    assert math.isnan(found[1])
    assert found[2] == pytest.approx((0.25 * 2 + 0.5 * 4) / 0.75)
    assert list(smoothed(_points([1.0, 5.0]), 0.0)) == _points([1.0, 5.0])


def test_series_of_several_jobs_are_what_each_has_alone_of_those_that_somebody_sees(made: Service) -> None:
    database = made.context.database
    hers, more, his = made.submit(user="ada"), made.submit(user="ada"), made.submit(user="bob")
    rows = [
        {"job_id": job_id, "name": name, "step": n, "epoch": 0, "value": float(n % 17 * length)}
        for job_id, length in ((hers, 300), (more, 7), (his, 20))
        for name in ("train_loss", "learning_rate")
        for n in range(1, length + 1)
    ]
    with database.write() as session:
        session.execute(insert(Metric), rows)
    ada, ids, names = Principal("ada", "researcher"), [more, his, hers, "not-a-job"], ["train_loss"]
    found = reduced_of(database, ada, ids, names, points=40)
    assert found == {job_id: reduced(database, ada, job_id, names, points=40) for job_id in (hers, more)}
    assert len(found[hers]["train_loss"]) <= 40
    assert set(reduced_of(database, ADMIN, ids, names, points=40)) == {hers, more, his}
    assert reduced_of(database, ada, [], names, points=40) == {}
