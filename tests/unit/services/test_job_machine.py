"""The state machine of jobs against a model of it: whatever users, workers and the clock do, in whatever order.

The model says what must be true (who wants a worker, who is the next, what follows from an end); it shares no code
with `services.jobs`. After every step the tables are compared with it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy import insert, select

from services import jobs
from services.claims import MAX_ATTEMPTS, Batch, Lease, Limits, NewArtifact, NewJob, Orders, StoredFile
from services.database import Database
from services.errors import Busy, Conflict, StaleAttempt
from services.order import Offer
from services.tables import Artifact, Attempt, Base, Checkpoint, Dataset, Job, Transition
from tests.support.clocked import DATASET, Clock
from tests.unit.services.test_jobs import LEASE

ENDED = ("succeeded", "failed", "cancelled")
DELAYS = (1.0, 10.0, 60.0)
WORK = ("renew", "checkpoint", "checkpoint", "finish", "finish", "finish", "fail", "lose", "release")
MOST_JOBS, MOST_RUNNING, MOST_WAITING = 9, 3, 4
LEGAL = {
    "queued": {"queued", "running", "paused", "cancelled", "failed"},
    "running": {"queued", "running", "paused", "succeeded", "failed", "cancelled"},
    "paused": {"queued", "running", "cancelled", "failed"},
}


@dataclass
class Model:
    """One job as it ought to be."""

    id: str
    owner: str
    order: int
    priority: int
    label: str | None
    parent: "Model | None" = None
    children: list["Model"] = field(default_factory=list)
    needs: list["Model"] = field(default_factory=list)
    fails_fast: bool = False
    state: str = "queued"
    worker: str | None = None
    attempt: int = 0
    lease_until: int = 0
    not_before: int = 0
    losses: int = 0
    step: int = 0
    cancel: bool = False
    pause: bool = False
    begun: bool = False
    again: "Model | None" = None

    @property
    def open(self) -> bool:
        return self.state not in ENDED

    @property
    def kept(self) -> list["Model"]:
        return [child for child in self.children if child.again is None]

    @property
    def is_parent(self) -> bool:
        return bool(self.children)

    @property
    def wants_worker(self) -> bool:
        if self.worker is not None or self.state not in ("queued", "running"):
            return False
        if self.is_parent:
            return all(child.state == "succeeded" for child in self.kept)
        needed = self.needs + (self.parent.needs if self.parent else [])
        return all(job.state == "succeeded" for job in needed)

    def idle_end(self, state: str) -> None:
        self.state, self.worker = state, None


class JobMachine(RuleBasedStateMachine):
    """Users `ada` and `bob`; workers with and without a label; every call of `services.jobs` but those of data sets."""

    @initialize()
    def begin(self) -> None:
        self.clock = Clock()
        self.database = Database("sqlite:///:memory:", self.clock)
        Base.metadata.create_all(self.database.engine)
        with self.database.write() as session:
            session.execute(insert(Dataset).values(**DATASET))
        self.jobs: dict[str, Model] = {}
        self.leases: list[Lease] = []
        self.seen: dict[str, str] = {}
        self.put("ada", children=2)
        self.put("bob", children=3, fails_fast=True)
        self.put("ada", needed=next(iter(self.jobs.values())))

    def teardown(self) -> None:
        if hasattr(self, "database"):
            self.database.close()

    # ── What is said of jobs ──────────────────────────────────────────────────────────────────────────────────────

    def pick(self, data: st.DataObject, which: Callable[[Model], bool] = lambda job: True) -> Model | None:
        found = [job for job in self.jobs.values() if which(job)]
        return data.draw(st.sampled_from(found)) if found else None

    def add(self, job: Model) -> Model:
        self.jobs[job.id] = job
        return job

    def family(self, job: Model) -> list[Model]:
        return [*job.children, job]

    def followers(self, job: Model) -> list[Model]:
        return [other for other in self.jobs.values() if job in other.needs]

    def after_end(self, job: Model) -> None:
        """What follows from an end: the parent, then those that were to follow."""
        if job.parent is not None:
            self.move_on(job.parent)
        if job.state != "succeeded":
            for follower in self.followers(job):
                self.cancel_idle(self.family(follower))

    def cancel_idle(self, family: list[Model]) -> None:
        idle = [job for job in family if job.open and job.worker is None]
        for job in idle:
            job.idle_end("cancelled")
        for job in idle:
            self.after_end(job)

    def move_on(self, parent: Model) -> None:
        if not parent.open or parent.worker is not None:
            return
        at_work = [child for child in parent.kept if child.open]
        failed = [child for child in parent.kept if child.state == "failed"]
        if at_work:
            if failed and parent.fails_fast:
                for child in at_work:
                    child.cancel = child.cancel or child.worker is not None
                self.cancel_idle(at_work)
            return
        if all(child.state == "succeeded" for child in parent.kept):
            return
        parent.idle_end("failed" if failed else "cancelled")
        self.after_end(parent)

    def give_back(self, job: Model) -> None:
        job.state, job.worker = ("paused" if job.pause else "queued"), None
        job.pause = False

    def lose(self, job: Model) -> None:
        job.losses += 1
        if job.cancel:
            job.losses -= 1
            job.idle_end("cancelled")
            self.after_end(job)
        elif job.losses < MAX_ATTEMPTS:
            job.not_before = self.clock.now + round(DELAYS[job.losses - 1] * 1000)
            self.give_back(job)
        else:
            job.idle_end("failed")
            self.after_end(job)

    # ── What users do ─────────────────────────────────────────────────────────────────────────────────────────────

    @precondition(lambda self: sum(job.parent is None for job in self.jobs.values()) < MOST_JOBS)
    @rule(
        data=st.data(),
        owner=st.sampled_from(["ada", "bob"]),
        priority=st.integers(0, 2),
        children=st.sampled_from([0, 0, 2, 3]),
        fails_fast=st.booleans(),
        label=st.sampled_from([None, None, "fast"]),
        follows=st.booleans(),
    )
    def submit(
        self,
        data: st.DataObject,
        owner: str,
        priority: int,
        children: int,
        fails_fast: bool,
        label: str | None,
        follows: bool,
    ) -> None:
        self.put(owner, priority, children, fails_fast, label, self.pick(data) if follows else None)

    def put(
        self,
        owner: str,
        priority: int = 0,
        children: int = 0,
        fails_fast: bool = False,
        label: str | None = None,
        needed: Model | None = None,
    ) -> None:
        labels = [label] if label else []
        run = NewJob("train", "a", {}, "d", owner, priority=priority, labels=labels)
        new = replace(
            run,
            kind="cross_validate" if children else "train",
            after=[needed.id] if needed else [],
            on_failure="fail_fast" if fails_fast else "finish_rest",
            children=[run] * children,
        )
        waiting = [job for job in self.jobs.values() if job.parent is None and job.state == "queued"]
        limits = Limits(waiting_of_user=MOST_WAITING)
        if len([job for job in waiting if job.owner == owner]) >= MOST_WAITING:
            with pytest.raises(Busy):
                jobs.submit(self.database, new, limits)
            return
        if needed is not None and needed.state in ("failed", "cancelled"):
            with pytest.raises(Conflict):
                jobs.submit(self.database, new, limits)
            return
        job_id, _ = jobs.submit(self.database, new, limits)
        self.clock.forward(0.001)
        made = self.add(Model(job_id, owner, len(self.jobs), priority, label, fails_fast=fails_fast))
        made.needs = [needed] if needed else []
        with self.database.read() as session:
            rows = session.scalars(select(Job.id).where(Job.parent_id == job_id).order_by(Job.position)).all()
        for row in rows:
            made.children.append(self.add(Model(row, owner, len(self.jobs), priority, label, made)))

    @rule(
        data=st.data(), what=st.sampled_from(["cancel", "pause", "pause", "resume", "retry", "retry", "set_priority"])
    )
    def ask(self, data: st.DataObject, what: str) -> None:
        getattr(self, what)(data)

    def cancel(self, data: st.DataObject) -> None:
        if (job := self.pick(data)) is None:
            return
        jobs.cancel(self.database, job.id)
        family = self.family(job)
        at_work = [member for member in family if member.worker is not None]
        self.cancel_idle(family)
        for member in at_work:
            member.cancel = True

    def pause(self, data: st.DataObject) -> None:
        if (job := self.pick(data)) is None:
            return
        if not job.open or job.cancel:
            with pytest.raises(Conflict):
                jobs.pause(self.database, job.id)
            return
        jobs.pause(self.database, job.id)
        for member in self.family(job):
            if member.worker is not None:
                member.pause = True
            elif member.open:
                member.state = "paused"

    def resume(self, data: st.DataObject) -> None:
        if (job := self.pick(data)) is None:
            return
        if not job.open or job.cancel:
            with pytest.raises(Conflict):
                jobs.resume(self.database, job.id)
            return
        jobs.resume(self.database, job.id)
        for member in self.family(job):
            member.pause = False
            if member.state == "paused":
                member.state = "running" if member.is_parent and member.begun else "queued"
        self.move_on(job)

    def retry(self, data: st.DataObject) -> None:
        if (job := self.pick(data, lambda job: job.state in ("failed", "cancelled"))) is None:
            return
        if job.again is not None:
            assert jobs.retry(self.database, job.id) == job.again.id
            return
        parent = job.parent
        if (parent is not None and (not parent.open or parent.worker is not None or parent.cancel)) or any(
            needed.state in ("failed", "cancelled") for needed in job.needs
        ):
            with pytest.raises(Conflict):
                jobs.retry(self.database, job.id)
            return
        again = self.tried_again(job, jobs.retry(self.database, job.id), parent)
        self.clock.forward(0.001)
        if parent is not None:
            parent.children.append(again)
            parent.children.sort(key=lambda child: child.order)

    def tried_again(self, job: Model, job_id: str, parent: Model | None) -> Model:
        again = Model(job_id, job.owner, len(self.jobs), job.priority, job.label, parent)
        again.needs, again.fails_fast, again.step, job.again = list(job.needs), job.fails_fast, job.step, again
        job.step = 0
        self.add(again)
        with self.database.read() as session:
            rows = dict(
                session.execute(select(Job.id, Job.superseded_by).where(Job.id.in_([j.id for j in job.kept]))).all()
            )
        for child in job.kept:
            if child.state == "succeeded":
                child.parent = again
                again.children.append(child)
            else:
                again.children.append(self.tried_again(child, str(rows[child.id]), again))
        job.children = [child for child in job.children if child.parent is job]
        return again

    def set_priority(self, data: st.DataObject) -> None:
        if (job := self.pick(data, lambda job: job.open and not job.cancel)) is None:
            return
        priority = data.draw(st.integers(0, 2))
        jobs.set_priority(self.database, job.id, priority)
        for member in self.family(job):
            if member.open:
                member.priority = priority

    # ── What workers, the scheduler and the clock do ──────────────────────────────────────────────────────────────

    @rule(
        data=st.data(),
        count=st.integers(1, 4),
        labels=st.sampled_from([frozenset({"fast"}), frozenset[str]()]),
        ends=st.lists(st.sampled_from(WORK), max_size=6),
    )
    def workers_act(self, data: st.DataObject, count: int, labels: frozenset[str], ends: list[str]) -> None:
        for number in range(count):
            self.claim(f"w{number}", labels)
        for what in ends:
            if held := self.held():
                self.work_once(data.draw(st.sampled_from(held)), what)

    def claim(self, worker: str, labels: frozenset[str]) -> None:
        running = [job.owner for job in self.jobs.values() if job.worker is not None]
        waiting = [
            job
            for job in self.jobs.values()
            if job.wants_worker
            and job.not_before <= self.clock.now
            and (job.label is None or job.label in labels)
            and running.count(job.owner) < MOST_RUNNING
        ]
        waiting.sort(key=lambda job: (-job.priority, running.count(job.owner), job.order))
        got = jobs.claim(self.database, worker, Offer(["any"], labels=labels), LEASE, MOST_RUNNING)
        if not waiting:
            assert got is None
            return
        job = waiting[0]
        assert got is not None
        assert (got.lease.job_id, got.lease.attempt) == (job.id, job.attempt + 1)
        assert set(got.children) == {child.id for child in job.kept}
        job.state, job.worker, job.attempt, job.begun = "running", worker, job.attempt + 1, True
        job.lease_until = self.clock.now + round(LEASE * 1000)
        if job.parent is not None and job.parent.state in ("queued", "paused"):
            job.parent.state, job.parent.begun = "running", True
        self.leases.append(got.lease)

    def holder(self, lease: Lease) -> Model | None:
        """The job whose present attempt a lease is for."""
        job = self.jobs[lease.job_id]
        return job if job.worker is not None and job.attempt == lease.attempt else None

    def calls(self, lease: Lease, step: int) -> dict[str, Callable[[], object]]:
        file = StoredFile(f"k{step}", "0" * 64, 1)
        return {
            "renew": lambda: jobs.renew(self.database, lease, LEASE, Batch(progress={"fraction": 0.5})),
            "checkpoint": lambda: jobs.record_checkpoint(self.database, lease, step, 0, {"model": file}),
            "finish": lambda: jobs.finish(self.database, lease, {"a": 1}, [NewArtifact("x", "text/plain", file)]),
            "fail": lambda: jobs.fail(self.database, lease, "non_finite_loss", "NaN", delays=DELAYS),
            "lose": lambda: jobs.fail(self.database, lease, "storage", "no answer", delays=DELAYS),
            "release": lambda: jobs.release(self.database, lease, "leaving"),
        }

    def held(self) -> list[Lease]:
        return [lease for lease in self.leases if self.holder(lease) is not None]

    def work_once(self, lease: Lease, what: str) -> None:
        job = self.jobs[lease.job_id]
        orders = self.calls(lease, job.step + 1)[what]()
        if what == "renew":
            assert orders == Orders(cancel=job.cancel, pause=job.pause)
            job.lease_until = self.clock.now + round(LEASE * 1000)
        elif what == "checkpoint":
            job.step, job.losses = job.step + 1, 0
        elif what == "finish":
            job.idle_end("succeeded")
            job.step = 0
            self.after_end(job)
        elif what == "fail":
            job.idle_end("cancelled" if job.cancel else "failed")
            self.after_end(job)
        elif what == "lose":
            self.lose(job)
        elif job.cancel:
            job.idle_end("cancelled")
            self.after_end(job)
        else:
            self.give_back(job)

    @precondition(lambda self: len(self.held()) < len(self.leases))
    @rule(data=st.data(), what=st.sampled_from(["renew", "checkpoint", "finish", "fail", "lose", "release"]))
    def work_under_a_lease_that_was_lost(self, data: st.DataObject, what: str) -> None:
        lease = data.draw(st.sampled_from([lease for lease in self.leases if self.holder(lease) is None]))
        job = self.jobs[lease.job_id]
        call = self.calls(lease, job.step + 1)[what]
        ends = {"finish": "succeeded", "fail": "failed", "lose": "failed"}
        if job.attempt == lease.attempt and job.state == ends.get(what):
            call()  # said again, after an acknowledgement that was lost
            return
        with pytest.raises(StaleAttempt):
            call()

    @rule(seconds=st.sampled_from([0.5, 2.0, 11.0, 31.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.forward(seconds)
        late = [job for job in self.jobs.values() if job.worker is not None and job.lease_until < self.clock.now]
        assert set(jobs.expire_leases(self.database, DELAYS)) == {job.id for job in late}
        for job in late:
            self.lose(job)

    # ── What must hold ────────────────────────────────────────────────────────────────────────────────────────────

    @invariant()
    def the_tables_are_as_the_model(self) -> None:
        if not hasattr(self, "database"):
            return
        with self.database.read() as session:
            rows = {row.id: row for row in session.scalars(select(Job))}
            steps: dict[str, list[int]] = {}
            for job_id, step in session.execute(select(Checkpoint.job_id, Checkpoint.step).order_by(Checkpoint.step)):
                steps.setdefault(job_id, []).append(step)
        assert rows.keys() == self.jobs.keys()
        for job in self.jobs.values():
            row = rows[job.id]
            told = (row.state, row.worker, row.attempt, row.wants_worker, row.priority, row.superseded_by)
            again = job.again.id if job.again else None
            assert told == (job.state, job.worker, job.attempt, job.wants_worker, job.priority, again), job.id
            if job.open:
                assert (row.cancel_requested, row.pause_requested) == (job.cancel, job.pause), job.id
            assert (row.finished_at is None) == job.open
            assert steps.get(job.id, [0])[-1] == job.step, job.id
            assert row.parent_id == (job.parent.id if job.parent else None)

    @invariant()
    def nothing_that_has_ended_changes_and_the_record_is_legal(self) -> None:
        if not hasattr(self, "database"):
            return
        with self.database.read() as session:
            states: dict[str, list[str]] = {}
            for row in session.scalars(select(Transition).order_by(Transition.id)):
                states.setdefault(row.job_id, []).append(row.state)
            attempts: dict[str, list[Attempt]] = {}
            for attempt in session.scalars(select(Attempt).order_by(Attempt.number)):
                attempts.setdefault(attempt.job_id, []).append(attempt)
            results = session.execute(select(Artifact.job_id, Artifact.attempt)).all()
        for job in self.jobs.values():
            history = states[job.id]
            assert all(new in LEGAL.get(old, set()) for old, new in pairwise(history)), history
            assert history[-1] == job.state
            if self.seen.get(job.id) in ENDED:
                assert job.state == self.seen[job.id]
            self.seen[job.id] = job.state
            tries = attempts.get(job.id, [])
            assert [attempt.number for attempt in tries] == list(range(1, job.attempt + 1))
            assert [attempt.number for attempt in tries if attempt.ended_at is None] == (
                [job.attempt] if job.worker is not None else []
            )
        assert {job_id: attempt for job_id, attempt in results}.items() <= {
            job.id: job.attempt for job in self.jobs.values() if job.state == "succeeded"
        }.items()


JobMachine.TestCase.settings = settings(
    max_examples=60, stateful_step_count=60, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)  # fmt: skip
TestJobMachine = JobMachine.TestCase
