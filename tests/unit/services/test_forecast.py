"""Places in the queue and estimates, against answers worked out by hand."""

import pytest

from services import fleet, jobs
from services.claims import Batch
from services.database import Database
from services.fleet import READY, Condition, Member, Weights
from services.forecast import look_ahead, look_ahead_of
from services.order import Offer
from tests.support.clocked import Clock
from tests.unit.services.test_jobs import LEASE, claim, new_job, submit


def worker(database: Database, name: str, labels: tuple[str, ...] = (), condition: Condition = READY) -> None:
    member = Member(name, "host", 1, "1", "CPU", ("any", "cpu"), labels, 8.0)
    fleet.beat(database, member, None, {}, Weights(), condition)


def finished(database: Database, clock: Clock, seconds: float) -> None:
    submit(database, priority=9)
    lease = claim(database, "past").lease
    clock.forward(seconds)
    jobs.finish(database, lease, {}, [])


def test_the_first_job_starts_when_the_slot_is_free(database: Database, clock: Clock) -> None:
    worker(database, "w")
    assert look_ahead(database, submit(database)) == {"position": 1, "starts_in_seconds": 0.0, "waits_for": []}
    running = claim(database).lease
    jobs.renew(database, running, LEASE, Batch(progress={"fraction": 0.25, "eta_seconds": 90.0}))
    waiting = submit(database)
    assert look_ahead(database, waiting) == {"position": 1, "starts_in_seconds": 90.0, "waits_for": []}
    assert look_ahead(database, running.job_id) is None


def test_jobs_before_it_last_as_long_as_their_like_did(database: Database, clock: Clock) -> None:
    for seconds in (50, 100, 300):
        finished(database, clock, seconds)
    for name in ("a", "b"):
        worker(database, name)
    for name, left in (("a", 10.0), ("b", 70.0)):
        submit(database)
        jobs.renew(database, claim(database, name).lease, LEASE, Batch(progress={"eta_seconds": left}))
    waiting = [submit(database) for _ in range(3)]
    # Slot a is free after 10 s and takes the first for 100 s; b is free after 70 s and takes the second; the third
    # follows on a at 110 s.
    estimates = [look_ahead(database, job_id) for job_id in waiting]
    assert [(found or {})["starts_in_seconds"] for found in estimates] == [10.0, 70.0, 110.0]
    assert [(found or {})["position"] for found in estimates] == [1, 2, 3]


def test_where_nothing_like_it_was_ever_done_no_estimate_is_made(database: Database) -> None:
    worker(database, "w")
    submit(database)
    second = submit(database)
    assert look_ahead(database, second) == {"position": 2, "starts_in_seconds": None, "waits_for": []}


def test_it_is_said_what_a_job_waits_for(database: Database, clock: Clock) -> None:
    first = submit(database)
    follower = submit(database, after=[first])
    found = look_ahead(database, follower)
    assert found is not None
    assert (found["position"], found["starts_in_seconds"]) == (None, None)
    assert found["waits_for"] == [f"job {first} (a job) is queued", "no worker is running"]

    worker(database, "w")
    on_gpu = submit(database, resource_class="gpu")
    told = "no worker that takes jobs now has what it asks for: gpu"
    assert (look_ahead(database, on_gpu) or {})["waits_for"] == [told]
    asking = submit(database, labels=["gpu=x", "room=2"], memory_gb=40, weights="vgg16-397923af.pth")
    told = "gpu=x, room=2, 40 GB, the ImageNet weights vgg16-397923af.pth"
    told = f"no worker that takes jobs now has what it asks for: {told}"
    assert (look_ahead(database, asking) or {})["waits_for"] == [told]

    lease = claim(database).lease
    limited = submit(database)
    assert (look_ahead(database, limited, 1) or {})["waits_for"] == ["ada has 1 jobs running, which is the limit"]

    jobs.fail(database, lease, "storage", "no answer", delays=(5.0,))
    assert (look_ahead(database, first) or {})["waits_for"] == ["an attempt was lost; the next one begins in 5 s"]
    jobs.pause(database, first)
    assert (look_ahead(database, first) or {})["waits_for"][0] == "it is paused"


@pytest.mark.parametrize("state", ["checking", "unfit", "draining"])
def test_a_worker_that_takes_no_jobs_counts_for_nothing_and_says_why(database: Database, state: str) -> None:
    worker(database, "w", condition=Condition(state, "its GPU does not answer"))
    found = look_ahead(database, submit(database))
    told = f"no worker takes jobs now: w is {state} (its GPU does not answer)"
    assert found == {"position": 1, "starts_in_seconds": None, "waits_for": [told]}
    worker(database, "v")
    assert look_ahead(database, submit(database)) == {"position": 2, "starts_in_seconds": None, "waits_for": []}


def test_before_a_job_for_which_there_is_no_worker_stands_what_such_a_worker_would_take(database: Database) -> None:
    worker(database, "w")
    submit(database)
    first, second = (submit(database, labels=["gpu=x"]) for _ in range(2))
    found = [look_ahead(database, job_id) or {} for job_id in (first, second)]
    assert [(job["position"], job["starts_in_seconds"]) for job in found] == [(2, None), (3, None)]


def test_a_worker_that_has_gone_counts_for_nothing(database: Database, clock: Clock) -> None:
    worker(database, "w")
    job_id = submit(database)
    clock.forward(fleet.LOST_MS / 1000 + 1)
    assert (look_ahead(database, job_id) or {})["waits_for"] == ["no worker is running"]


def test_a_parent_waits_as_its_first_waiting_child_does(database: Database) -> None:
    worker(database, "w")
    parent = submit(database, kind="cross_validate", children=[new_job(), new_job()])
    assert (look_ahead(database, parent) or {})["position"] == 1
    assert jobs.claim(database, "w", Offer(["any"]), LEASE) is not None
    assert look_ahead(database, parent) is None


def test_several_jobs_are_told_what_each_is_told_alone(database: Database, clock: Clock) -> None:
    for seconds in (50, 100):
        finished(database, clock, seconds)
    worker(database, "w")
    worker(database, "labelled", labels=("gpu=x",))
    first, second = (submit(database) for _ in range(2))
    follower = submit(database, after=[first, second])
    labelled = submit(database, labels=["gpu=x"])
    nobodys = submit(database, labels=["gpu=y", "room=2"])
    parent = submit(database, kind="cross_validate", children=[new_job(), new_job()], after=[first])
    whole = submit(database, kind="cross_validate", children=[new_job(), new_job()])
    paused, done = submit(database), submit(database)
    jobs.pause(database, paused)
    jobs.cancel(database, done)
    lease = claim(database, "w").lease
    jobs.renew(database, lease, LEASE, Batch(progress={"eta_seconds": 20.0}))
    waiting = [second, follower, labelled, nobodys, parent, whole, paused]
    for most in (None, 1):
        together = look_ahead_of(database, [*waiting, done, lease.job_id, "not-a-job"], most)
        assert set(together) == set(waiting)
        assert together == {job_id: look_ahead(database, job_id, most) for job_id in waiting}
    assert together[second]["waits_for"] == ["ada has 1 jobs running, which is the limit"]
    assert len({str(found) for found in together.values()}) == len(waiting)
    assert look_ahead_of(database, []) == {}
