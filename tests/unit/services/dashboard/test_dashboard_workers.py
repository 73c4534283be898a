"""The page of workers: what it tells of each, how busy they were, and asking one to leave from it."""

import re

import pytest

from services import fleet
from services.fleet import Condition, Member, Weights
from services.fleet_use import Use
from tests.unit.services.dashboard.browsing import csrf_of, words_of
from tests.unit.services.dashboard.conftest import SignIn
from tests.unit.services.dashboard.full_service import EVIL, Service

FIGURES = {"cpu_percent": 37.5, "memory_used": 21e9, "memory_total": 135e9, "disk_free": 1.2e12}
OF_GPU = {"gpu_percent": 91.0, "gpu_memory_used": 61e9, "gpu_memory_total": 85.5e9, "gpu_celsius": 64}


def beat(made: Service, slot: int, condition: Condition = fleet.READY, use: Use | None = None) -> bool:
    labels = ["room=2", f"slot={slot}"]
    member = Member(f"gpu-1/{slot}", "node-b", 4711, "0.1.0", f"H100, GPU {slot}", ["any", "gpu"], labels, 85.5)
    told = {**FIGURES, **OF_GPU}
    return fleet.beat(made.context.database, member, None, told, Weights("/w", [], True), condition, use)


def test_a_worker_tells_of_its_host_its_gpus_and_why_a_slot_takes_no_jobs(made: Service, sign_in: SignIn) -> None:
    beat(made, 0)
    beat(made, 1, Condition("unfit", f"device: no kernel image {EVIL}"))
    answer = sign_in().get("/workers")
    words = words_of(answer)
    for told in ("gpu-1 0 of 2 slots busy", "node-b process 4711", "37 %", "21.0 GB of 135.0 GB", "1.2 TB"):
        assert told in words
    for told in ("H100, GPU 0", "GPU 91 %", "GPU memory 61.0 GB of 85.5 GB", "64 °C", "unfit device: no kernel image"):
        assert told in words
    assert "Labels room=2" in words
    assert words.count("slot=") == 2
    assert EVIL not in answer.text


def test_a_chart_shows_gpu_use_before_jobs_and_gaps_where_nothing_was_told(made: Service, sign_in: SignIn) -> None:
    beat(made, 0, use=Use(1.0, 50.0, 10.0))
    beat(made, 1, use=Use(0.25))
    answer = sign_in().get("/workers?span=3")
    assert re.search(r"Use over the last 3 hours: had a job 100 % of the time, GPU 50 % on average\"", answer.text)
    assert "had a job 25 % of the time" in words_of(answer)
    paths = re.findall(r'class="(had-job|gpu)" d="([^"]*)"', answer.text)
    assert [(name, path.count("M")) for name, path in paths] == [("had-job", 1), ("gpu", 1), ("had-job", 1), ("gpu", 0)]
    assert [path.partition("v-")[2].partition("h")[0] for _, path in paths] == ["28.0", "14.0", "7.0", ""]


@pytest.mark.parametrize("span", ["", "24", "1000000000", "-1", "x"])
def test_charts_are_of_a_day_where_no_other_span_is_asked_for(made: Service, sign_in: SignIn, span: str) -> None:
    beat(made, 0, use=Use(1.0))
    assert "Charts: the last 24 hours" in words_of(sign_in().get(f"/workers?span={span}"))


def test_an_admin_asks_a_worker_to_leave_and_nobody_else_can(made: Service, sign_in: SignIn) -> None:
    beat(made, 0)
    ada, root = sign_in("ada", "researcher"), sign_in()
    assert "Drain" not in ada.get("/workers").text
    assert ada.post("/workers/gpu-1/drain", data={"csrf": csrf_of(ada.get("/jobs"))}).status_code == 403
    assert not beat(made, 0)
    form = {"csrf": csrf_of(root.get("/workers"))}
    assert root.post("/workers/gpu-1/drain", data={}).status_code == 403
    assert root.post("/workers/gpu-2/drain", data=form).status_code == 404
    answer = root.post("/workers/gpu-1/drain", data=form, follow_redirects=True)
    assert "gpu-1 was asked to leave" in words_of(answer)
    assert "draining root asked it to leave" in words_of(answer)
    assert "Drain gpu-1" not in words_of(answer)
    assert beat(made, 0)
