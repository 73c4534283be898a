"""Workers as the control plane knows them: who is asked to leave, and how busy they were."""

import pytest
from sqlalchemy import func, select

from services import fleet, fleet_use, views
from services.database import Database
from services.errors import Conflict, NotFound
from services.fleet import Member, Weights
from services.fleet_use import Use
from services.tables import WorkerUse
from tests.support.clocked import Clock

MINUTE, HOUR = 60.0, 3600.0


def beat(database: Database, name: str, pid: int = 1, use: Use | None = None, is_first: bool = False) -> bool:
    member = Member(name, "node", pid, "0.1.0", "CPU", ("any", "cpu"))
    return fleet.beat(database, member, None, {}, Weights(), use=use, is_first=is_first)


def states(database: Database) -> dict[str, str]:
    return {row["name"]: row["state"] for row in views.list_workers(database)}


@pytest.mark.parametrize("name", ["gpu-1", "gpu-1/0", "gpu-1/1"])
def test_all_slots_of_a_worker_hear_that_it_is_to_leave_and_no_others(database: Database, name: str) -> None:
    for slot in ("gpu-1/0", "gpu-1/1", "gpu-10/0", "gpu-2/0"):
        assert not beat(database, slot)
    told: list[str] = []
    for _ in range(2):  # asked again, nothing changes
        assert fleet.drain(database, name, "ada", lambda _, subject: told.append(subject)) == "gpu-1"
    assert told == ["gpu-1"]
    assert states(database) == {"gpu-1/0": "draining", "gpu-1/1": "draining", "gpu-10/0": "idle", "gpu-2/0": "idle"}
    assert [beat(database, slot) for slot in ("gpu-1/0", "gpu-1/1", "gpu-10/0", "gpu-2/0")] == [
        True,
        True,
        False,
        False,
    ]
    assert views.list_workers(database)[0]["why"] == "ada asked it to leave"


def test_a_worker_that_was_started_again_under_the_name_is_not_the_one_that_was_asked(database: Database) -> None:
    beat(database, "gpu-1/0", pid=1)
    fleet.drain(database, "gpu-1", "ada")
    assert not beat(database, "gpu-1/0", pid=2)
    assert states(database) == {"gpu-1/0": "idle"}
    assert not beat(database, "gpu-1/0", pid=2)


def test_nor_is_one_whose_container_gave_it_the_number_of_the_one_before(database: Database, clock: Clock) -> None:
    """It would be asked whenever it begins, for ever: one that was killed while it left has not signed off."""
    assert not beat(database, "gpu-1/0", is_first=True)
    fleet.drain(database, "gpu-1", "ada")
    assert beat(database, "gpu-1/0")
    clock.forward(5)
    before = views.list_workers(database)[0]["started_at"]
    assert not beat(database, "gpu-1/0", is_first=True)
    assert states(database) == {"gpu-1/0": "idle"}
    assert views.list_workers(database)[0]["started_at"] > before
    fleet.drain(database, "gpu-1", "ada")
    assert beat(database, "gpu-1/0")


def test_who_is_not_there_or_hears_nothing_is_not_asked(database: Database, clock: Clock) -> None:
    with pytest.raises(NotFound, match="gpu"):
        fleet.drain(database, "gpu", "ada")
    beat(database, "gpu-1/0")
    clock.forward(61)
    with pytest.raises(Conflict, match="lost"):
        fleet.drain(database, "gpu-1", "ada")
    assert not beat(database, "gpu-1/0")


def test_use_is_told_in_equal_parts_of_time_the_latest_last_with_gaps_where_nothing_was_told(
    database: Database, clock: Clock
) -> None:
    beat(database, "a/0", use=Use(1.0, 80.0, 10.0))
    beat(database, "b/0", use=Use(1.0, None, 10.0))
    clock.forward(2 * HOUR)
    beat(database, "a/0", use=Use(0.5, 40.0, 20.0))
    clock.forward(MINUTE)
    beat(database, "a/0", use=Use(1.0, 60.0, 40.0))
    assert fleet_use.history(database, 3, 3) == {
        "a/0": [Use(1.0, 80.0, 10.0), None, Use(0.75, 50.0, 30.0)],
        "b/0": [Use(1.0, None, 10.0), None, None],
    }
    assert fleet_use.history(database, 1, 2) == {"a/0": [None, Use(0.75, 50.0, 30.0)]}


def test_use_of_longer_ago_than_two_days_is_forgotten_step_by_step(
    database: Database, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet_use, "FORGOTTEN_AT_ONCE", 2)
    for _ in range(5):
        beat(database, "a/0", use=Use(1.0))
        clock.forward(MINUTE)
    clock.forward(48 * HOUR - 2.5 * MINUTE)
    assert [fleet_use.forget(database) for _ in range(3)] == [2, 1, 0]
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(WorkerUse)) == 2
