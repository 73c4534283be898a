"""The state machine, on SQLite with a clock that the test moves. `tests/integration` repeats it on PostgreSQL."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import select

from services import jobs, views
from services.claims import MAX_ATTEMPTS, Batch, Claim, Lease, NewArtifact, NewJob, Orders, StoredFile
from services.database import Database
from services.errors import Conflict, NotFound, StaleAttempt
from services.order import Offer
from services.tables import Attempt, Job
from services.tokens import Principal
from tests.support.clocked import Clock

LEASE = 30.0
ADMIN = Principal("ada", "admin")


def new_job(user: str = "ada", **changes: object) -> NewJob:
    values = {"kind": "train", "name": "a job", "spec": {"x": 1}, "dataset_id": "d", "created_by": user, **changes}
    return NewJob(**values)  # type: ignore[arg-type]


def submit(database: Database, user: str = "ada", **changes: object) -> str:
    return jobs.submit(database, new_job(user, **changes))[0]


def claim(database: Database, worker: str = "w") -> Claim:
    claimed = jobs.claim(database, worker, Offer(["any"]), LEASE)
    assert claimed is not None
    return claimed


def state(database: Database, job_id: str) -> tuple[str, str | None]:
    job = views.get_job(database, ADMIN, job_id)
    return job["state"], job["reason"]


def parent_of(database: Database, folds: int) -> str:
    children = [new_job(name=f"fold {n}") for n in range(folds)]
    return submit(database, kind="cross_validate", children=children)


# ── Submitting and claiming ──────────────────────────────────────────────────────────────────────────────────────


def test_the_same_idempotency_key_gives_the_same_job(database: Database) -> None:
    first, created = jobs.submit(database, new_job(idempotency_key="k"))
    again, created_again = jobs.submit(database, new_job(idempotency_key="k"))
    assert (first == again, created, created_again) == (True, True, False)


def test_an_idempotency_key_for_another_request_is_a_conflict(database: Database) -> None:
    jobs.submit(database, new_job(idempotency_key="k"))
    with pytest.raises(Conflict):
        jobs.submit(database, new_job(idempotency_key="k", spec={"x": 2}))


@pytest.mark.parametrize("change", [{"time_limit": 5}, {"on_failure": "fail_fast"}, {"after": True}])
def test_an_idempotency_key_tells_requests_apart_by_all_that_they_ask(
    database: Database, change: dict[str, object]
) -> None:
    other = submit(database)
    asked = {"after": [other]} if "after" in change else change
    first, _ = jobs.submit(database, new_job(idempotency_key="k", **asked))
    assert jobs.submit(database, new_job(idempotency_key="k", **asked)) == (first, False)
    with pytest.raises(Conflict):
        jobs.submit(database, new_job(idempotency_key="k"))


def test_users_do_not_share_idempotency_keys(database: Database) -> None:
    assert submit(database, "ada", idempotency_key="k") != submit(database, "bob", idempotency_key="k")


def test_a_job_is_claimed_once(database: Database) -> None:
    job_id = submit(database)
    assert claim(database).lease == Lease(job_id, 1)
    assert jobs.claim(database, "w2", Offer(["any"]), LEASE) is None


def test_jobs_are_claimed_by_priority_then_age(database: Database, clock: Clock) -> None:
    old = submit(database)
    clock.forward(1)
    young = submit(database)
    clock.forward(1)
    urgent = submit(database, priority=5)
    assert [claim(database).lease.job_id for _ in range(3)] == [urgent, old, young]


def test_a_user_with_nothing_running_comes_before_one_with_a_running_job(database: Database, clock: Clock) -> None:
    first = submit(database, "ada")
    clock.forward(1)
    second = submit(database, "ada")
    clock.forward(1)
    other = submit(database, "bob")
    assert [claim(database).lease.job_id for _ in range(3)] == [first, other, second]


def test_a_worker_gets_only_jobs_of_its_resource_classes(database: Database) -> None:
    submit(database, resource_class="gpu")
    assert jobs.claim(database, "w", Offer(["any", "cpu"]), LEASE) is None
    assert jobs.claim(database, "w", Offer(["any", "gpu"]), LEASE) is not None


def test_a_worker_gets_only_jobs_whose_weights_it_can_have(database: Database) -> None:
    needs = submit(database, weights="swin_t-704ceda3.pth")
    needs_none = submit(database)
    offline = [jobs.claim(database, "w", Offer(["any"], weights), LEASE) for weights in ([], ["vgg16-397923af.pth"])]
    assert [claimed and claimed.lease.job_id for claimed in offline] == [needs_none, None]
    has_it = jobs.claim(database, "w", Offer(["any"], ["swin_t-704ceda3.pth"]), LEASE)
    assert has_it is not None
    assert has_it.lease.job_id == needs
    submit(database, weights="swin_t-704ceda3.pth")
    assert jobs.count_waiting(database) == {"any": 1}
    claim(database)


# ── Fences ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_worker_that_lost_its_lease_can_write_nothing(database: Database, clock: Clock) -> None:
    job_id = submit(database)
    old = claim(database, "slow").lease
    clock.forward(LEASE + 1)
    assert jobs.expire_leases(database) == [job_id]
    clock.forward(60)
    new = claim(database, "fast").lease
    file = StoredFile("k", "0" * 64, 1)
    writes: list[Callable[[], object]] = [
        lambda: jobs.renew(database, old, LEASE, Batch(metrics=[metric(1, 0.5)])),
        lambda: jobs.resumed(database, old, 0),
        lambda: jobs.record_checkpoint(database, old, 1, 1, {"model": file}),
        lambda: jobs.finish(database, old, {"a": 1}, [NewArtifact("x", "text/plain", file)]),
        lambda: jobs.fail(database, old, "internal", "x"),
        lambda: jobs.release(database, old, "x"),
        lambda: jobs.confirm_cancel(database, old),
    ]
    for write in writes:
        with pytest.raises(StaleAttempt):
            write()
    job = views.get_job(database, ADMIN, job_id)
    assert (job["state"], job["attempt"], job["summary"]) == ("running", new.attempt, {})
    assert views.list_metrics(database, ADMIN, job_id) == {}
    assert views.list_artifacts(database, ADMIN, job_id) == []
    assert views.list_checkpoints(database, ADMIN, job_id) == []


def test_a_lease_that_expired_but_was_not_taken_back_can_be_renewed(database: Database, clock: Clock) -> None:
    submit(database)
    lease = claim(database).lease
    clock.forward(LEASE + 1)
    jobs.renew(database, lease, LEASE)
    assert jobs.expire_leases(database) == []


def test_finishing_twice_changes_nothing(database: Database) -> None:
    job_id = submit(database)
    lease = claim(database).lease
    artifact = NewArtifact("report.json", "application/json", StoredFile("k", "0" * 64, 1))
    jobs.finish(database, lease, {"a": 1}, [artifact])
    jobs.finish(database, lease, {"a": 2}, [artifact])
    assert views.get_job(database, ADMIN, job_id)["summary"] == {"a": 1}
    assert [item["name"] for item in views.list_artifacts(database, ADMIN, job_id)] == ["report.json"]


@pytest.mark.parametrize("end", ["succeeded", "failed", "cancelled"])
def test_a_job_that_has_ended_never_changes_again(database: Database, clock: Clock, end: str) -> None:
    job_id = submit(database)
    lease = claim(database).lease
    ends: dict[str, Callable[[], object]] = {
        "succeeded": lambda: jobs.finish(database, lease, {}, []),
        "failed": lambda: jobs.fail(database, lease, "internal", "broken"),
        "cancelled": lambda: jobs.confirm_cancel(database, lease),
    }
    ends[end]()
    before = views.get_job(database, ADMIN, job_id)
    clock.forward(1000)
    jobs.cancel(database, job_id)
    jobs.expire_leases(database)
    writes: dict[str, Callable[[], object]] = {
        "any": lambda: jobs.renew(database, lease, LEASE),
        "queued": lambda: jobs.release(database, lease, "x"),
        "failed": lambda: jobs.fail(database, lease, "storage", "x"),
        "succeeded": lambda: jobs.finish(database, lease, {"a": 1}, []),
    }
    for write in [write for state, write in writes.items() if state != end]:
        with pytest.raises(StaleAttempt):
            write()
    assert views.get_job(database, ADMIN, job_id) == before
    assert jobs.claim(database, "w", Offer(["any"]), LEASE) is None


# ── Lost workers ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_job_of_a_silent_worker_is_queued_again_with_its_checkpoint(database: Database, clock: Clock) -> None:
    job_id = submit(database)
    lease = claim(database, "w1").lease
    files = {"model.safetensors": StoredFile("jobs/x/1", "1" * 64, 7)}
    jobs.record_checkpoint(database, lease, 40, 2, files)
    clock.forward(LEASE - 1)
    assert jobs.expire_leases(database) == []
    clock.forward(2)
    assert jobs.expire_leases(database) == [job_id]
    assert state(database, job_id) == ("queued", None)
    clock.forward(2)
    again = claim(database, "w2")
    assert (again.lease.attempt, again.checkpoint) == (2, files)


def test_a_job_that_kills_every_worker_fails_after_its_attempts(database: Database, clock: Clock) -> None:
    job_id = submit(database)
    for _ in range(MAX_ATTEMPTS):
        clock.forward(120)
        claim(database)
        clock.forward(LEASE + 1)
        jobs.expire_leases(database)
    assert state(database, job_id) == ("failed", "worker_lost")
    clock.forward(1000)
    assert jobs.claim(database, "w", Offer(["any"]), LEASE) is None


def test_a_retry_waits_longer_each_time(database: Database, clock: Clock) -> None:
    submit(database)
    for delay in (1, 10):
        jobs.fail(database, claim(database).lease, "storage", "no answer")
        clock.forward(delay - 0.5)
        assert jobs.claim(database, "w", Offer(["any"]), LEASE) is None
        clock.forward(0.5)


def test_a_failure_that_would_repeat_is_not_tried_again(database: Database) -> None:
    job_id = submit(database)
    jobs.fail(database, claim(database).lease, "non_finite_loss", "NaN")
    assert state(database, job_id) == ("failed", "non_finite_loss")


def test_out_of_memory_is_tried_once_more_with_fewer_images_at_once_from_the_last_checkpoint(
    database: Database,
) -> None:
    job_id = submit(database)
    lease = claim(database).lease
    files = {"model.safetensors": StoredFile("jobs/x/1", "1" * 64, 7)}
    jobs.record_checkpoint(database, lease, 40, 2, files)
    jobs.fail(database, lease, "out_of_memory", "32 images at once do not fit", fewer=16)
    assert state(database, job_id) == ("queued", None)
    again = claim(database)  # at once
    assert (again.lease.attempt, again.images_at_once, again.checkpoint, again.spec) == (2, 16, files, {"x": 1})
    told = [(a["outcome"], a["images_at_once"]) for a in views.list_attempts(database, ADMIN, job_id)]
    assert told == [("out_of_memory", None), (None, 16)]
    assert "tried once more with 16 images" in views.list_events(database, ADMIN, job_id)[-2]["detail"]
    jobs.fail(database, again.lease, "out_of_memory", "16 images at once do not fit", fewer=8)
    assert state(database, job_id) == ("failed", "out_of_memory")


def test_a_job_stays_with_fewer_images_at_once_whatever_ends_its_attempts_then(
    database: Database, clock: Clock
) -> None:
    job_id = submit(database)
    jobs.fail(database, claim(database).lease, "out_of_memory", "too many", fewer=4)
    jobs.release(database, claim(database).lease, "leaving")
    jobs.fail(database, claim(database).lease, "storage", "no answer")
    clock.forward(2)
    assert claim(database).images_at_once == 4
    clock.forward(LEASE + 1)
    jobs.expire_leases(database)
    clock.forward(120)
    assert claim(database).images_at_once == 4
    with database.read() as session:
        assert session.scalar(select(Job.losses).where(Job.id == job_id)) == 2  # want of memory is none


@pytest.mark.parametrize("reason", ["out_of_memory", "internal"])
def test_what_can_not_do_with_fewer_images_or_did_not_lack_memory_fails(database: Database, reason: str) -> None:
    job_id = submit(database)
    jobs.fail(database, claim(database).lease, reason, "x", fewer=None if reason == "out_of_memory" else 4)
    assert state(database, job_id) == ("failed", reason)


def test_a_cancelled_job_that_is_out_of_memory_is_cancelled(database: Database) -> None:
    job_id = submit(database)
    lease = claim(database).lease
    jobs.cancel(database, job_id)
    jobs.fail(database, lease, "out_of_memory", "too many", fewer=4)
    assert state(database, job_id)[0] == "cancelled"


def test_want_of_memory_that_is_told_twice_is_one_try_more(database: Database) -> None:
    job_id = submit(database)
    lease = claim(database).lease
    jobs.fail(database, lease, "out_of_memory", "too many", fewer=8)
    with pytest.raises(StaleAttempt):
        jobs.fail(database, lease, "out_of_memory", "too many", fewer=8)
    assert state(database, job_id) == ("queued", None)


def test_an_unknown_reason_becomes_internal(database: Database) -> None:
    job_id = submit(database)
    jobs.fail(database, claim(database).lease, "gremlins", "?")
    assert state(database, job_id) == ("failed", "internal")


def test_a_released_job_waits_again_at_once_and_nothing_is_counted_against_it(database: Database) -> None:
    job_id = submit(database)
    for _ in range(MAX_ATTEMPTS + 2):
        jobs.release(database, claim(database).lease, "leaving")
    assert state(database, job_id) == ("queued", None)


def test_a_resumed_attempt_takes_back_the_figures_after_its_checkpoint(database: Database, clock: Clock) -> None:
    job_id = submit(database)
    lease = claim(database).lease
    jobs.renew(database, lease, LEASE, Batch(metrics=[metric(step, step / 10) for step in (1, 2, 3)]))
    jobs.record_checkpoint(database, lease, 2, 1, {})
    clock.forward(LEASE + 1)
    jobs.expire_leases(database)
    clock.forward(5)
    lease = claim(database).lease
    jobs.resumed(database, lease, 2)
    jobs.renew(database, lease, LEASE, Batch(metrics=[metric(2, 0.9), metric(3, 0.7)]))
    points = views.list_metrics(database, ADMIN, job_id)["loss"]
    assert [(p["step"], p["value"]) for p in points] == [(1, 0.1), (2, 0.9), (3, 0.7)]
    attempts = views.list_attempts(database, ADMIN, job_id)
    assert [(a["outcome"], a["resumed_from_step"]) for a in attempts] == [("worker_lost", None), (None, 2)]


def metric(step: int, value: float) -> dict[str, object]:
    return {"name": "loss", "step": step, "epoch": 0, "value": value}


# ── Cancelling ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_waiting_job_is_cancelled_at_once(database: Database) -> None:
    job_id = submit(database)
    assert jobs.cancel(database, job_id) == "cancelled"
    assert jobs.claim(database, "w", Offer(["any"]), LEASE) is None


def test_a_running_job_is_told_to_stop_and_cancelled_by_its_worker(database: Database) -> None:
    job_id = submit(database)
    lease = claim(database).lease
    assert jobs.renew(database, lease, LEASE).cancel is False
    assert jobs.cancel(database, job_id) == "running"
    assert jobs.renew(database, lease, LEASE).cancel is True
    jobs.confirm_cancel(database, lease)
    assert state(database, job_id)[0] == "cancelled"


def test_a_result_that_was_finished_before_the_cancel_was_heard_stays(database: Database) -> None:
    job_id = submit(database)
    lease = claim(database).lease
    jobs.cancel(database, job_id)
    jobs.finish(database, lease, {"a": 1}, [])
    assert state(database, job_id)[0] == "succeeded"


def test_a_cancelled_job_whose_worker_dies_is_cancelled_not_tried_again(database: Database, clock: Clock) -> None:
    job_id = submit(database)
    claim(database)
    jobs.cancel(database, job_id)
    clock.forward(LEASE + 1)
    jobs.expire_leases(database)
    assert state(database, job_id)[0] == "cancelled"


def test_cancelling_what_does_not_exist_is_not_found(database: Database) -> None:
    with pytest.raises(NotFound):
        jobs.cancel(database, "nope")


# ── Parents ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_parent_runs_while_its_children_work_and_then_wants_a_worker_itself(database: Database) -> None:
    parent = parent_of(database, 2)
    first = claim(database)
    assert first.lease.job_id != parent
    assert state(database, parent)[0] == "running"
    second = claim(database)
    assert jobs.claim(database, "w", Offer(["any"]), LEASE) is None
    jobs.finish(database, first.lease, {}, [])
    assert jobs.claim(database, "w", Offer(["any"]), LEASE) is None
    jobs.finish(database, second.lease, {}, [])
    pooling = claim(database)
    assert pooling.lease.job_id == parent
    assert pooling.children == (first.lease.job_id, second.lease.job_id)
    jobs.finish(database, pooling.lease, {"pooled": 1}, [])
    job = views.get_job(database, ADMIN, parent)
    assert (job["state"], job["children"]["succeeded"]) == ("succeeded", 2)


def test_a_parent_fails_with_the_reason_of_a_failed_child_once_all_have_ended(database: Database) -> None:
    parent = parent_of(database, 2)
    first, second = claim(database), claim(database)
    jobs.fail(database, first.lease, "non_finite_loss", "NaN at step 7")
    assert state(database, parent)[0] == "running"
    jobs.finish(database, second.lease, {}, [])
    assert state(database, parent) == ("failed", "non_finite_loss")
    assert "NaN at step 7" in views.get_job(database, ADMIN, parent)["error"]


def test_a_study_is_pooled_from_what_there_is_and_fails_only_without_anything(database: Database) -> None:
    for ends, wanted in (("sf", "running"), ("ff", "failed"), ("sc", "running"), ("cc", "cancelled")):
        study = submit(database, kind="study", children=[new_job(name=f"cell {n}") for n in range(2)])
        for end in ends:
            lease = claim(database).lease
            if end == "s":
                jobs.finish(database, lease, {}, [])
            elif end == "f":
                jobs.fail(database, lease, "out_of_memory", "too large")
            else:
                jobs.cancel(database, lease.job_id)
                jobs.confirm_cancel(database, lease)
        assert state(database, study)[0] == wanted, ends
        if wanted == "running":
            pooling = claim(database).lease
            assert pooling.job_id == study
            jobs.finish(database, pooling, {}, [])


def test_a_cancelled_study_is_not_pooled(database: Database) -> None:
    study = submit(database, kind="study", children=[new_job(name=f"cell {n}") for n in range(2)])
    first, second = claim(database).lease, claim(database).lease
    jobs.finish(database, first, {}, [])
    jobs.cancel(database, study)
    jobs.confirm_cancel(database, second)
    assert state(database, study)[0] == "cancelled"


def test_cancelling_a_parent_cancels_its_children(database: Database) -> None:
    parent = parent_of(database, 3)
    running = claim(database)
    jobs.cancel(database, parent)
    assert state(database, parent)[0] == "cancelled"
    assert jobs.claim(database, "w", Offer(["any"]), LEASE) is None
    assert jobs.renew(database, running.lease, LEASE).cancel is True
    jobs.confirm_cancel(database, running.lease)
    assert views.get_job(database, ADMIN, parent)["children"]["cancelled"] == 3


def test_cancelling_every_child_cancels_the_parent(database: Database) -> None:
    parent = parent_of(database, 2)
    for child in views.list_children(database, ADMIN, parent):
        jobs.cancel(database, child["id"])
    assert state(database, parent)[0] == "cancelled"


# ── Pausing, trying again, following ─────────────────────────────────────────────────────────────────────────────


def test_a_running_job_is_paused_when_its_worker_gives_it_back_and_goes_on_after(database: Database) -> None:
    job_id = submit(database)
    lease = claim(database).lease
    assert jobs.pause(database, job_id) == "running"
    assert jobs.renew(database, lease, LEASE) == Orders(cancel=False, pause=True)
    jobs.release(database, lease, "paused on request")
    assert state(database, job_id)[0] == "paused"
    assert jobs.claim(database, "w", Offer(["any"]), LEASE) is None
    assert jobs.resume(database, job_id) == "queued"
    assert claim(database).lease == Lease(job_id, 2)
    assert [a["outcome"] for a in views.list_attempts(database, ADMIN, job_id)] == ["paused", None]


def test_a_pause_that_is_taken_back_in_time_only_costs_the_attempt(database: Database) -> None:
    job_id = submit(database)
    lease = claim(database).lease
    jobs.pause(database, job_id)
    jobs.resume(database, job_id)
    jobs.release(database, lease, "paused on request")
    assert state(database, job_id)[0] == "queued"
    assert claim(database).lease.job_id == job_id


def test_a_paused_parent_pools_nothing_before_it_is_resumed(database: Database) -> None:
    parent = parent_of(database, 2)
    leases = [claim(database).lease for _ in range(2)]
    assert jobs.pause(database, parent) == "paused"
    for lease in leases:
        jobs.finish(database, lease, {}, [])  # it was done before it heard of the pause
    assert jobs.claim(database, "w", Offer(["any"]), LEASE) is None
    assert jobs.resume(database, parent) == "running"
    assert claim(database).lease.job_id == parent


def test_a_job_that_is_tried_again_has_the_figures_up_to_the_checkpoint_from_which_it_goes_on(
    database: Database,
) -> None:
    job_id = submit(database)
    lease = claim(database).lease
    metrics = [{"step": step, "epoch": 1, "name": "loss", "value": 1.0 / step} for step in (2, 4, 6, 8)]
    jobs.renew(database, lease, LEASE, Batch(metrics=metrics))
    for step in (4, 6):
        jobs.record_checkpoint(database, lease, step, 1, {"m": StoredFile(f"k{step}", "0" * 64, 1)})
    jobs.fail(database, lease, "time_limit", "too long")
    again = jobs.retry(database, job_id)
    steps = [[point["step"] for point in views.list_metrics(database, ADMIN, id)["loss"]] for id in (job_id, again)]
    assert steps == [[2, 4, 6, 8], [2, 4, 6]]
    lease = claim(database).lease
    jobs.resumed(database, lease, 4)  # the newest checkpoint was damaged
    jobs.renew(database, lease, LEASE, Batch(metrics=[{"step": 6, "epoch": 1, "name": "loss", "value": 0.5}]))
    points = views.list_metrics(database, ADMIN, again)["loss"]
    assert [(point["step"], point["value"]) for point in points] == [(2, 0.5), (4, 0.25), (6, 0.5)]


def test_a_job_that_is_tried_again_is_held_to_as_few_images_at_once_as_before(database: Database) -> None:
    """Else it would run out of memory once more, or go on with other sums than those that it began with."""
    job_id = submit(database)
    jobs.fail(database, claim(database).lease, "out_of_memory", "32 images at once do not fit", fewer=16)
    jobs.fail(database, claim(database).lease, "time_limit", "too long")
    again = jobs.retry(database, job_id)
    taken = claim(database)
    assert (taken.lease.job_id, taken.images_at_once) == (again, 16)
    assert [attempt["images_at_once"] for attempt in views.list_attempts(database, ADMIN, again)] == [16]


def test_a_job_without_a_checkpoint_that_is_tried_again_begins_its_figures_anew(database: Database) -> None:
    job_id = submit(database)
    lease = claim(database).lease
    jobs.renew(database, lease, LEASE, Batch(metrics=[{"step": 2, "epoch": 1, "name": "loss", "value": 0.5}]))
    jobs.fail(database, lease, "stalled", "silent")
    assert views.list_metrics(database, ADMIN, jobs.retry(database, job_id)) == {}


def test_one_fold_that_failed_is_tried_again_alone_while_the_others_work(database: Database) -> None:
    parent = parent_of(database, 2)
    first, second = claim(database).lease, claim(database).lease
    jobs.fail(database, first, "non_finite_loss", "NaN")
    again = jobs.retry(database, first.job_id)
    jobs.finish(database, second, {}, [])
    assert state(database, parent)[0] == "running"
    jobs.finish(database, claim(database).lease, {}, [])
    pooling = claim(database)
    assert pooling.lease.job_id == parent
    assert pooling.children == (again, second.job_id)


def test_a_cross_validation_that_is_tried_again_keeps_the_folds_that_succeeded(database: Database) -> None:
    parent = parent_of(database, 3)
    leases = [claim(database).lease for _ in range(3)]
    jobs.finish(database, leases[0], {}, [])
    jobs.finish(database, leases[2], {}, [])
    jobs.fail(database, leases[1], "stalled", "silent")
    assert state(database, parent) == ("failed", "stalled")
    with pytest.raises(Conflict, match=parent):
        jobs.retry(database, leases[1].job_id)
    again = jobs.retry(database, parent)
    third_try = claim(database).lease
    assert third_try.job_id not in {lease.job_id for lease in leases}
    assert jobs.claim(database, "w", Offer(["any"]), LEASE) is None
    jobs.finish(database, third_try, {}, [])
    pooling = claim(database)
    assert pooling.lease.job_id == again
    assert pooling.children == (leases[0].job_id, third_try.job_id, leases[2].job_id)
    assert state(database, parent) == ("failed", "stalled")


def test_where_one_failure_is_enough_the_other_folds_are_not_run_to_their_end(database: Database) -> None:
    children = [new_job(name=f"fold {n}") for n in range(3)]
    parent = submit(database, kind="cross_validate", children=children, on_failure="fail_fast")
    first, second = claim(database).lease, claim(database).lease
    jobs.fail(database, first, "non_finite_loss", "NaN")
    assert jobs.claim(database, "w", Offer(["any"]), LEASE) is None
    assert jobs.renew(database, second, LEASE).cancel is True
    jobs.confirm_cancel(database, second)
    assert state(database, parent) == ("failed", "non_finite_loss")


def test_a_chain_of_jobs_runs_in_its_order_and_ends_with_the_first_that_fails(database: Database) -> None:
    first = submit(database)
    second = submit(database, after=[first])
    third = submit(database, after=[second])
    jobs.finish(database, claim(database).lease, {}, [])
    lease = claim(database).lease
    assert lease.job_id == second
    jobs.fail(database, lease, "internal", "broken")
    assert state(database, third)[0] == "cancelled"
    assert second in views.get_job(database, ADMIN, third)["error"]
    with pytest.raises(Conflict, match="retry"):
        submit(database, after=[second])


def test_a_time_limit_counts_the_work_of_all_attempts(database: Database, clock: Clock) -> None:
    submit(database, time_limit=100)
    first = claim(database)
    assert first.seconds_left == 100
    clock.forward(30)
    jobs.release(database, first.lease, "leaving")
    clock.forward(500)
    assert claim(database).seconds_left == 70


def test_a_job_goes_only_to_a_worker_that_has_its_labels_and_memory(database: Database) -> None:
    job_id = submit(database, labels=["gpu=h100", "fast"], memory_gb=40.0)
    fast = frozenset({"fast"})
    for offer in (
        Offer(["any"]),
        Offer(["any"], labels=fast, memory_gb=80.0),
        Offer(["any"], labels=fast | {"gpu=h100"}, memory_gb=24.0),
        Offer(["any"], labels=fast | {"gpu=h100"}, memory_gb=0.0),
    ):
        assert jobs.claim(database, "w", offer, LEASE) is None
    offer = Offer(["any"], labels=fast | {"gpu=h100", "more"}, memory_gb=40.0)
    claimed = jobs.claim(database, "w", offer, LEASE)
    assert claimed is not None
    assert claimed.lease.job_id == job_id


def test_a_job_that_gets_on_is_never_given_up(database: Database, clock: Clock) -> None:
    job_id = submit(database)
    for step in range(1, 8):
        lease = claim(database).lease
        jobs.record_checkpoint(database, lease, step, 1, {"m": StoredFile(f"k{step}", "0" * 64, 1)})
        jobs.fail(database, lease, "worker_lost", "killed")
        clock.forward(60)
    assert state(database, job_id)[0] == "queued"
    for _ in range(MAX_ATTEMPTS - 1):  # the first one was the last of those above
        lease = claim(database).lease
        jobs.record_checkpoint(database, lease, 7, 1, {"m": StoredFile("k7", "0" * 64, 1)})  # no further than before
        jobs.fail(database, lease, "worker_lost", "killed")
        clock.forward(60)
    assert state(database, job_id) == ("failed", "worker_lost")


def test_kept_checkpoints_stay_and_their_weights_are_among_the_result(database: Database) -> None:
    job_id = submit(database)
    lease = claim(database).lease
    dropped: list[str] = []
    for step in (2, 4, 6, 8, 10):
        files = {name: StoredFile(f"{name}-{step}", "0" * 64, step) for name in ("model.safetensors", "state.json")}
        dropped += jobs.record_checkpoint(database, lease, step, step // 2, files, kept=step in (4, 8))
    assert sorted(dropped) == sorted(
        f"{name}-{step}" for name in ("model.safetensors", "state.json") for step in (2, 6)
    )
    assert [row["step"] for row in views.list_checkpoints(database, ADMIN, job_id)] == [4, 8, 10]
    report = NewArtifact("report.json", "application/json", StoredFile("report", "1" * 64, 1))
    assert jobs.finish(database, lease, {}, [report]) == {"report", "model.safetensors-4", "model.safetensors-8"}
    assert views.list_checkpoints(database, ADMIN, job_id) == []
    found = {row["name"]: row["size"] for row in views.list_artifacts(database, ADMIN, job_id)}
    assert found == {"epoch-0002.model.safetensors": 4, "epoch-0004.model.safetensors": 8, "report.json": 1}


def test_a_kept_checkpoint_that_is_reached_again_replaces_itself(database: Database) -> None:
    """An attempt that had to go back further passes the ends of the same epochs again."""
    job_id = submit(database)
    lease = claim(database).lease
    for key, step in (("a", 4), ("b", 5), ("c", 3), ("d", 4)):
        files = {"model.safetensors": StoredFile(key, "0" * 64, 1)}
        jobs.record_checkpoint(database, lease, step, 2, files, kept=step == 4)
    jobs.finish(database, lease, {}, [])
    assert views.get_artifact(database, ADMIN, job_id, "epoch-0002.model.safetensors").key == "d"


# ── The record ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_transition_and_attempt_is_on_record(database: Database, clock: Clock) -> None:
    job_id = submit(database)
    jobs.release(database, claim(database, "w1").lease, "leaving")
    jobs.finish(database, claim(database, "w2").lease, {}, [])
    events = views.list_events(database, ADMIN, job_id)
    assert [event["state"] for event in events] == ["queued", "running", "queued", "running", "succeeded"]
    with database.read() as session:
        outcomes = session.execute(select(Attempt.worker, Attempt.outcome).order_by(Attempt.number)).all()
    assert [tuple(row) for row in outcomes] == [("w1", "released"), ("w2", "succeeded")]


def test_only_the_state_machine_writes_jobs() -> None:
    """No other module builds a statement that changes the table."""
    machine = Path(jobs.__file__).parent
    for path in machine.parent.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        writes = any(f"{verb}(Job)" in text for verb in ("update", "insert", "delete"))
        assert not writes or path.parent == machine, path
        made = re.search(r"\bJob\(", text.replace("class Job(", ""))
        assert made is None or path.parent == machine, path
    assert Job.__tablename__ == "jobs"
