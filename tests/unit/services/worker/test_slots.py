"""Which slot is given work, and what is told of a worker that was started again."""

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from services import fleet, views
from services.database import Database
from services.fleet import READY, Condition, Member, Weights
from services.worker.devices import Device
from services.worker.slots import Slot, SlotPool
from tests.support.databases import make_schema


class Bench(Slot):
    """A slot that only counts how often it is given work."""

    def __init__(self, condition: Condition) -> None:
        self.condition, self.worked = condition, 0

    def work(self, draining: Any) -> None:
        self.worked += 1


@pytest.mark.parametrize("unfit_is_last", [True, False])
def test_an_unfit_slot_takes_no_wake_up_from_one_that_is_fit(unfit_is_last: bool) -> None:
    fit, unfit = Bench(READY), Bench(Condition("unfit", "its GPU is lost"))
    pool = SlotPool([fit, unfit] if unfit_is_last else [unfit, fit])
    for _ in range(3):
        pool.work(threading.Event())
    assert (fit.worked, unfit.worked) == (3, 0)


def test_a_worker_that_was_killed_and_started_again_under_its_name_tells_what_it_is_now(tmp_path: Path) -> None:
    moments = iter(range(1_000, 100_000))
    database = Database(f"sqlite:///{tmp_path / 'b.db'}", clock=lambda: next(moments))
    make_schema(database.url)
    before = Member("w/0", "node", 1, "0.1.0", "CPU", ["any", "cpu"], ["old"], 8.0)
    after = Member("w/0", "node", 2, "0.2.0", "H100", ["any", "gpu"], ["new"], 85.5)
    started = []
    for member in (before, before, after, after):
        fleet.beat(database, member, None, {}, Weights())
        (row,) = views.list_workers(database)
        told = (row["pid"], row["version"], row["device"], row["resource_classes"], row["labels"], row["memory_gb"])
        assert told == (
            member.pid,
            member.version,
            member.device,
            *map(list, (member.resource_classes, member.labels)),
            member.memory_gb,
        )
        started.append(row["started_at"])
    assert started[0] == started[1] < started[2] == started[3]
    database.close()


def test_a_slot_says_that_it_begins_until_it_was_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slot = Slot.__new__(Slot)
    slot.context = SimpleNamespace(settings=SimpleNamespace(home=tmp_path), database=None)  # type: ignore[assignment]
    slot.member, slot.device, slot.weights = Member("w/0", "node", 1, "0.1.0", "CPU", []), Device("CPU"), Weights
    slot.lease, slot._watch, slot.condition = None, None, READY
    slot._news, slot._leaving = threading.Event(), threading.Event()
    said: list[bool] = []

    def hear(*told: Any) -> bool:
        said.append(told[-1])
        slot._news.set()
        if len(said) == 4:
            slot._leaving.set()
        if len(said) < 3:
            raise OperationalError("", None, Exception("the database is away"))
        return False

    monkeypatch.setattr(fleet, "beat", hear)
    slot._beat()
    assert said == [True, True, True, False]
