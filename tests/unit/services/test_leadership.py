"""One scheduler leads, and another one soon after it has gone. `tests/integration` repeats it on PostgreSQL."""

import pytest

from services.database import Database
from services.leadership import SECONDS, Leadership
from tests.support.clocked import Clock


@pytest.fixture
def pair(database: Database) -> tuple[Leadership, Leadership]:
    return Leadership(database, "scheduler", "a"), Leadership(database, "scheduler", "b")


def test_the_first_leads_and_goes_on_leading(pair: tuple[Leadership, Leadership], clock: Clock) -> None:
    a, b = pair
    for _ in range(5):
        assert (a.hold(), b.hold()) == (1, None)
        clock.forward(SECONDS - 0.5)
    assert (a.leads, b.leads, b.present()) == (True, False, "a")


def test_another_takes_over_when_the_leader_is_silent_and_the_old_one_sees_it(
    pair: tuple[Leadership, Leadership], clock: Clock
) -> None:
    a, b = pair
    assert a.hold() == 1
    clock.forward(SECONDS + 0.001)
    assert b.hold() == 2
    assert (a.hold(), a.leads, b.leads) == (None, False, True)


def test_what_is_given_back_is_taken_at_once(pair: tuple[Leadership, Leadership]) -> None:
    a, b = pair
    a.hold()
    a.give_back()
    assert (b.hold(), a.hold(), a.leads) == (2, None, False)


def test_only_who_leads_can_give_back(pair: tuple[Leadership, Leadership]) -> None:
    a, b = pair
    a.hold()
    b.give_back()
    assert (b.hold(), a.hold()) == (None, 1)


def test_a_clock_that_was_set_back_by_an_hour_leaves_no_hour_without_a_leader(
    pair: tuple[Leadership, Leadership], clock: Clock
) -> None:
    a, b = pair
    a.hold()
    clock.forward(-3600)
    assert b.hold() == 2


def test_whoever_can_not_renew_stops_leading_by_its_own_clock(
    pair: tuple[Leadership, Leadership], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, _ = pair
    now = 1000.0
    monkeypatch.setattr("services.leadership.time.monotonic", lambda: now)
    a.hold()
    now += SECONDS - 0.1
    assert a.leads
    now += 0.2
    assert not a.leads


def test_offices_are_apart(database: Database) -> None:
    assert Leadership(database, "scheduler", "a").hold() == 1
    assert Leadership(database, "other", "b").hold() == 1
