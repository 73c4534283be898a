"""The queue over the last day, from what happened to jobs, and what is stored."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import update

from services import jobs
from services.database import Database
from services.overview import HOUR_MS, Remembered, last_day, storage
from services.tables import Job, Transition
from tests.unit.services.dashboard.full_service import Service, add_datasets, service


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Service]:
    with service(tmp_path) as found:
        add_datasets(found)
        yield found


def _earlier(made: Service, job_id: str, hours: float, state: str | None = None) -> None:
    """Moves what happened to a job, or its coming into one state, into the past."""
    ms = round(hours * HOUR_MS)
    with made.context.database.write() as session:
        which = [Transition.job_id == job_id, *([Transition.state == state] if state else [])]
        session.execute(update(Transition).where(*which).values(at=Transition.at - ms))
        if state in (None, "queued"):
            session.execute(update(Job).where(Job.id == job_id).values(created_at=Job.created_at - ms))


def test_an_empty_service_had_an_empty_queue(made: Service) -> None:
    day = last_day(made.context.database)
    assert [hour.ago for hour in day] == list(range(23, -1, -1))
    assert {(hour.waiting, hour.entered, hour.begun, hour.mean_wait) for hour in day} == {(0, 0, 0, None)}


def test_length_and_waits_follow_from_what_happened(made: Service) -> None:
    began, waits, gone = (made.submit(name=name) for name in ("began", "waits", "gone"))
    made.claim()
    jobs.cancel(made.context.database, gone)
    _earlier(made, began, 3.5, "queued")
    _earlier(made, began, 1.5, "running")
    _earlier(made, waits, 2.5)
    day = {hour.ago: hour for hour in last_day(made.context.database)}
    assert [day[ago].waiting for ago in (4, 3, 2, 1, 0)] == [0, 1, 2, 1, 1]
    assert [day[ago].entered for ago in (4, 3, 2, 1, 0)] == [0, 1, 1, 0, 1]
    assert [day[ago].begun for ago in (4, 3, 2, 1, 0)] == [0, 0, 0, 1, 0]
    assert day[1].mean_wait == day[1].longest_wait == pytest.approx(2 * 3600, abs=60)
    assert day[0].mean_wait is None


def test_what_waits_since_before_the_day_is_counted_and_a_parent_is_not(made: Service) -> None:
    old = made.submit(name="old")
    _earlier(made, old, 30)
    made.submit("cross_validate", spec={"split": {"folds": 3}}, name="parent")
    day = last_day(made.context.database)
    assert (day[0].waiting, day[-1].waiting, day[-1].entered) == (1, 4, 3)


def test_what_is_stored_is_told_by_kind(made: Service) -> None:
    made.submit()
    made.finish(made.claim(), {}, {"report.json": b"{}", "model.safetensors": b"\0" * 1000})
    found = storage(made.context.database)
    assert (found.datasets, found.artifacts, found.checkpoints, found.whole) == (0, 1002, 0, 1002)


@pytest.mark.parametrize(
    ("took", "holds"),
    [(0.001, 10), (0.1, 100), (2, 300)],
)
def test_an_answer_holds_by_what_it_cost(
    made: Service, monkeypatch: pytest.MonkeyPatch, took: float, holds: float
) -> None:
    now, asked = [0.0], []
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def ask(database: Database) -> int:
        now[0] += took
        asked.append(database.url)
        return len(asked)

    remembered = Remembered(ask, most=300)
    assert remembered(made.context.database) == 1
    now[0] += holds - 0.5
    assert remembered(made.context.database) == 1
    now[0] += 1
    assert remembered(made.context.database) == 2
