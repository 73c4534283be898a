"""A worker beside a newer API: what it does not understand it leaves to others."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert

from services import jobs, views
from services.claims import NewJob
from services.context import Context
from services.fleet import READY, Weights
from services.order import Offer
from services.settings import Settings
from services.tables import Dataset
from services.tokens import Principal
from services.worker import slots
from services.worker.devices import Device
from services.worker.slots import Slot
from tests.support.clocked import DATASET
from tests.support.databases import make_schema

ADMIN = Principal("ada", "admin")


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    made = Context(Settings.load({"BGPANET_HOME": str(tmp_path), "BGPANET_REDIS_URL": "redis://127.0.0.1:1/0"}))
    make_schema(made.database.url)
    with made.database.write() as session:
        session.execute(insert(Dataset).values(**DATASET))
    yield made
    made.database.close()
    made.celery.close()


@pytest.mark.parametrize(
    ("kind", "spec"), [("train", {"training": {"epochs": 3, "warp": 9}}), ("distil", {"model": "bgpanet_micro"})]
)
def test_a_job_of_a_newer_version_is_given_back_unharmed_and_left_to_others(
    context: Context, monkeypatch: pytest.MonkeyPatch, kind: str, spec: dict[str, Any]
) -> None:
    job_id, _ = jobs.submit(context.database, NewJob(kind, "of tomorrow", spec, "d", "ada"))
    monkeypatch.setattr(slots, "problems", lambda context, server: [])
    slot = Slot(context, "w/0", Device("CPU"), 1, lambda: Weights(reachable=False))
    try:
        slot.work(threading.Event())  # returns: it takes the job once and no more
        assert slot.condition == READY
    finally:
        slot.close()
    job = views.get_job(context.database, ADMIN, job_id)
    assert (job["state"], job["attempt"], job["reason"]) == ("queued", 1, None)
    events = [event["detail"] for event in views.list_events(context.database, ADMIN, job_id)]
    assert "does not understand it" in events[-1]
    assert jobs.claim(context.database, "newer", Offer(["any"]), 30) is not None
