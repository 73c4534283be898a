"""A drill: the product, a load, and faults one after another, drawn from a seed; then the judge."""

import contextlib
import hashlib
import random
import re
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from services.tables import TERMINAL, Attempt, Checkpoint, Job
from tests.chaos.faults import FAULTS, Fault, Running, Unreachable
from tests.chaos.judge import Findings, Witness, judge
from tests.chaos.load import Load, Order
from tests.chaos.product import Product, WorkerPart

REFUSED = re.compile(r"end came under a lost lease|lease lost: another attempt|no longer holds its lease")
"""What a worker's log says when a write of a lost attempt was refused."""
OPPORTUNITY_SECONDS = 15.0  # for which a fault is tried to be injected
MOST_BESIDE = 2  # faults that last, at once
PASS_SECONDS = 10.0  # a killed training goes on within its lease and so long


@dataclass(frozen=True)
class Pace:
    """How hard the product is pressed.

    kills: of processes, in all; between_seconds: mean time between two faults; other_faults: share of all that are not
    kills; first: faults to begin with, once each, None: all; quiet_seconds: for all jobs to end after the last fault.
    """

    kills: int
    between_seconds: float = 1.0
    other_faults: float = 0.08
    first: tuple[str, ...] | None = None
    minutes: float = 120.0
    workers: int = 3
    width: int = 5
    epochs: int = 20
    variants: int = 3
    redis_gone_seconds: float = 30.0
    quiet_seconds: float = 300.0
    lease_seconds: float = 3.0
    stall_seconds: float = 20.0
    max_attempts: int = 100  # what is killed at random is hit many times in a row; see `kill_every_worker`
    only: tuple[str, ...] = ()
    without: tuple[str, ...] = ()


@dataclass(frozen=True)
class Injected:
    """A fault that was injected, or for which there was no opportunity (what: None). at, lasted: seconds."""

    at: float
    lasted: float
    fault: str
    what: str | None


@dataclass(frozen=True)
class Hit:
    """An attempt that was hit by a fault. at: ms since 1970; floor: the step from which it must go on at least."""

    job_id: str
    attempt: int
    at: int
    how: str
    floor: int
    step: int


@dataclass
class Outcome:
    """What a drill found."""

    database: str
    seed: int
    seconds: float
    findings: Findings
    injected: list[Injected]
    recoveries: list[float] = field(default_factory=list)  # seconds from a kill to the next attempt's claim
    beside_slow: Counter[str] = field(default_factory=Counter)  # what else went on during those above the mark
    steps_lost: list[int] = field(default_factory=list)
    kills: int = 0
    submitted: int = 0
    repeated: int = 0
    refused_writes: int = 0

    @property
    def counts(self) -> Counter[str]:
        return Counter(each.fault for each in self.injected if each.what is not None)


class Drill:
    """One run of it."""

    def __init__(self, database: str, seed: int, pace: Pace, folder: Path, say: Callable[[str], None]) -> None:
        self.database, self.seed, self.pace, self.say = database, seed, pace, say
        settings = {
            "lease_seconds": pace.lease_seconds,
            "stall_seconds": pace.stall_seconds,
            "grace_seconds": 5.0,
            "max_attempts": pace.max_attempts,
            "retry_seconds": (0.1,),
        }
        self.verbose = False
        self.product = Product(database, folder, pace.workers, settings)
        self.load = Load(self.product, seed, pace.width, pace.epochs, pace.variants)
        self.witness = Witness(self.product.context.database)
        self.hits: list[Hit] = []
        self.injected: list[Injected] = []
        self._held: set[str] = set()
        self._flipped: set[str] = set()  # keys of files in the store
        self._beside: list[threading.Thread] = []
        self._errors: list[BaseException] = []
        self._begun, self._begun_at = time.monotonic(), time.time()
        self._kills = 0

    def run(self) -> Outcome:
        """The whole drill. Raises AssertionError where the product did not do what a fault waits for."""
        try:
            self.product.start()
            self.say("running the load's jobs undisturbed")
            self.load.prepare()
            self.load.start()
            self._begun, self._begun_at = time.monotonic(), time.time()
            self._inject_all()
            self.load.stop()
            self.say("waiting for all jobs to end")
            self._until_quiet()
            return self._outcome()
        finally:
            self.load.close()
            self.product.close()

    # ── Faults ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _plan(self) -> Iterator[tuple[Fault, random.Random]]:
        """Faults without end, each with its own generator: first each once, then as their shares say."""
        rng = random.Random(f"plan {self.seed}")
        faults = [f for f in FAULTS if self.database in f.databases and f.name not in self.pace.without]
        if self.pace.only:
            faults = [fault for fault in faults if fault.name in self.pace.only]
        first = [fault for fault in faults if self.pace.first is None or fault.name in self.pace.first]
        rng.shuffle(first)
        kills = [fault for fault in faults if fault.kills] or faults
        others = [fault for fault in faults if not fault.kills] or faults
        while True:
            if first:
                fault = first.pop()
            else:
                among = others if rng.random() < self.pace.other_faults else kills
                fault = rng.choices(among, [each.share for each in among])[0]
            yield fault, random.Random(rng.getrandbits(64))

    def _inject_all(self) -> None:
        plan = self._plan()
        pause = random.Random(f"pause {self.seed}")
        told = time.monotonic()
        enough = len([f for f in FAULTS if self.database in f.databases]) if self.pace.first is None else 0
        while (self._kills < self.pace.kills or len(self.injected) < enough) and self._minutes() < self.pace.minutes:
            fault, rng = next(plan)
            if fault.beside:
                self._join(MOST_BESIDE - 1)
                thread = threading.Thread(target=self._inject, args=(fault, rng), name=fault.name, daemon=True)
                self._beside.append(thread)
                thread.start()
            else:
                self._inject(fault, rng)
            self._check()
            time.sleep(pause.expovariate(1 / self.pace.between_seconds) if self.pace.between_seconds else 0)
            if time.monotonic() - told > 30:
                told = time.monotonic()
                self._progress()
        self._join()
        self._check()

    def _inject(self, fault: Fault, rng: random.Random) -> None:
        what, begun = None, time.monotonic()
        try:
            while time.monotonic() - begun < OPPORTUNITY_SECONDS:
                before = len(self.hits)
                with contextlib.suppress(*Unreachable):
                    what = fault.inject(self, rng)
                if what is not None or len(self.hits) > before:
                    break
                time.sleep(0.5)
        except BaseException as error:
            self._errors.append(error)
            what = f"failed: {error}"
        if fault.kills and what is not None:
            self._kills += 1
        at, lasted = begun - self._begun, time.monotonic() - begun
        if self.verbose:
            self.say(f"{lasted:5.1f} s {fault.name}: {what or 'no opportunity'}")
        self.injected.append(Injected(round(at, 2), round(lasted, 2), fault.name, what))

    def _join(self, most: int = 0) -> None:
        """Waits until no more than `most` faults go on beside the others."""
        while len(self._beside) > most:
            for thread in self._beside:
                thread.join(0.05)
            self._beside = [thread for thread in self._beside if thread.is_alive()]

    def _check(self) -> None:
        """Raises what was found wrong so far."""
        self.load.check()
        if self._errors:
            raise self._errors[0]
        with contextlib.suppress(SQLAlchemyError):
            self.witness.look()
        if self.witness.broken:
            raise AssertionError("; ".join(self.witness.broken))

    def _minutes(self) -> float:
        return (time.monotonic() - self._begun) / 60

    def _progress(self) -> None:
        passed, done = self._minutes(), max(1, self._kills)
        left = passed * (self.pace.kills - self._kills) / done
        jobs = len(self.load.accepted)
        self.say(f"{self._kills}/{self.pace.kills} kills, {jobs} jobs, {passed:.1f} min, {left:.0f} min to go")

    # ── What faults ask and tell ──────────────────────────────────────────────────────────────────────────────────

    def running(self) -> list[Running]:
        """The jobs that our workers have, by id. Raises SQLAlchemyError."""
        slots = {worker.slot: worker for worker in self.product.workers}
        with self.product.context.database.read() as session:
            query = select(Job.id, Job.attempt, Job.worker, Job.kind).where(Job.state == "running")
            rows = session.execute(query.where(Job.worker.in_(slots)).order_by(Job.id)).all()
        return [Running(row.id, row.attempt, slots[row.worker or ""], row.kind) for row in rows]

    def shuffled(self, rng: random.Random, kind: str | None = None) -> list[Running]:
        dead = {(hit.job_id, hit.attempt) for hit in self.hits if hit.how != "stopped"}
        found = [one for one in self.running() if (one.job_id, one.attempt) not in dead]
        found = [one for one in found if not self.is_held(one.worker) and kind in (None, one.kind)]
        rng.shuffle(found)
        return found

    def pick(self, rng: random.Random, kind: str | None = None) -> Running | None:
        return next(iter(self.shuffled(rng, kind)), None)

    def running_in(self, folder: str) -> Running | None:
        """The running attempt to which a folder in scratch belongs."""
        job_id, _, attempt = folder.rpartition("-")
        for one in self.running():
            if (one.job_id, str(one.attempt)) == (job_id, attempt) and not self.is_held(one.worker):
                return one
        return None

    def job_of(self, worker: WorkerPart) -> Running | None:
        with contextlib.suppress(SQLAlchemyError):
            return next((one for one in self.running() if one.worker is worker), None)
        return None

    def still(self, victim: Running) -> bool:
        """Whether the attempt goes on."""
        return self.attempt(victim).ended_at is None

    def attempt(self, victim: Running) -> Attempt:
        with self.product.context.database.read() as session:
            return session.get_one(Attempt, (victim.job_id, victim.attempt))

    def checkpoints(self, job_id: str) -> Sequence[Checkpoint]:
        """A job's, the newest first."""
        with self.product.context.database.read() as session:
            query = select(Checkpoint).where(Checkpoint.job_id == job_id).order_by(Checkpoint.step.desc())
            return session.scalars(query).all()

    def is_damaged(self, checkpoint: Checkpoint) -> bool:
        """Whether a bit of it was flipped."""
        return any(file["key"] in self._flipped for file in checkpoint.files.values())

    def ended(self, job_id: str) -> bool:
        with contextlib.suppress(SQLAlchemyError), self.product.context.database.read() as session:
            return session.get_one(Job, job_id).state in TERMINAL
        return False

    def wait(self, look: Callable[[], Any], seconds: float) -> bool:
        """Waits until it is so; False after `seconds`."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with contextlib.suppress(*Unreachable):
                if look():
                    return True
            time.sleep(0.02)
        return False

    def killing(self, victim: Running, how: str = "killed", floor: int | None = None) -> None:
        """Notes that an attempt is hit now."""
        with contextlib.suppress(*Unreachable):
            newest = next((row.step for row in self.checkpoints(victim.job_id) if not self.is_damaged(row)), 0)
            with self.product.context.database.read() as session:
                step = int(session.get_one(Job, victim.job_id).progress.get("step") or 0)
            at = time.time_ns() // 1_000_000
            self.hits.append(Hit(victim.job_id, victim.attempt, at, how, newest if floor is None else floor, step))

    def count_kills(self, count: int) -> None:
        """Kills of a fault that kills more than once."""
        self._kills += count

    def job_of_our_own(self, order: Order, note: str) -> Running | None:
        """Submits a job for one fault alone, and waits until its child has said a word."""
        job = self.load.submit(replace(order, priority=1), note=note)
        found: list[Running] = []

        def looks() -> bool:
            found[:] = [one for one in self.running() if one.job_id == job.id and not self.is_held(one.worker)]
            return bool(found) and bool(self.checkpoints(job.id))

        return found[0] if self.wait(looks, 60) else None

    def allow(self, victim: Running, end: str, compare: bool = True) -> None:
        """Another end is right for a job of our own."""
        job = self.load.accepted[victim.job_id]
        job.ends |= {end}
        if not compare:
            job.order = replace(job.order, like=None)

    def expect(self, victim: Running, end: str) -> None:
        """No other end is right."""
        self.load.accepted[victim.job_id].ends = frozenset({end})

    @contextlib.contextmanager
    def holding(self, worker: WorkerPart) -> Iterator[None]:
        """No other fault touches the worker meanwhile."""
        self._held.add(worker.name)
        try:
            yield
        finally:
            self._held.discard(worker.name)

    def is_held(self, worker: WorkerPart) -> bool:
        return worker.name in self._held

    def free_workers(self) -> list[WorkerPart]:
        return [worker for worker in self.product.workers if not self.is_held(worker)]

    def flip(self, key: str, rng: random.Random) -> None:
        """Changes one bit of a stored file, which keeps its key. Raises StorageError."""
        store = self.product.context.store
        self._flipped.add(key)
        with store.open(key) as file:
            content = bytearray(file.read())
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "file"
            path.write_bytes(content)
            store.put_file(key, path, hashlib.sha256(content).hexdigest())

    # ── The end ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _until_quiet(self) -> None:
        """Until every job has ended, or for `quiet_seconds`; then the judge finds those that have not."""

        def quiet() -> bool:
            with self.product.context.database.read() as session:
                return session.scalar(select(Job.id).where(Job.state.not_in(TERMINAL)).limit(1)) is None

        self.wait(quiet, self.pace.quiet_seconds)
        time.sleep(1)
        with contextlib.suppress(SQLAlchemyError):
            self.witness.look()

    def _outcome(self) -> Outcome:
        context = self.product.context
        findings = judge(context.database, context.store, self.load.accepted.values(), self.load.references)
        findings.doubled.extend(self.witness.broken)
        outcome = Outcome(
            self.database,
            self.seed,
            time.monotonic() - self._begun,
            findings,
            self.injected,
            kills=self._kills,
            submitted=len(self.load.accepted),
            repeated=self.load.count.repeated,
            refused_writes=sum(
                len(REFUSED.findall(worker.log.read_text(errors="replace"))) for worker in self.product.workers
            ),
        )
        self._recoveries(outcome)
        return outcome

    def _recoveries(self, outcome: Outcome) -> None:
        with self.product.context.database.read() as session:
            attempts = {(a.job_id, a.number): a for a in session.scalars(select(Attempt))}
        for hit in _firsts(self.hits):
            was, then = attempts.get((hit.job_id, hit.attempt)), attempts.get((hit.job_id, hit.attempt + 1))
            if was is None or then is None or was.outcome not in ("worker_lost", "storage"):
                continue
            if hit.how == "killed":
                seconds = max(0, then.started_at - hit.at) / 1000
                outcome.recoveries.append(seconds)
                if seconds > self.pace.lease_seconds + PASS_SECONDS:
                    outcome.beside_slow.update(self._lasting(hit.at / 1000 - self._begun_at, seconds))
            if then.resumed_from_step is None:
                continue  # that one was hit as well, before it had begun
            if then.resumed_from_step < hit.floor:
                where = f"attempt {then.number} of job {hit.job_id}"
                told = f"{where} went on from step {then.resumed_from_step}, with a checkpoint of {hit.floor} recorded"
                outcome.findings.other.append(told)
            outcome.steps_lost.append(max(0, hit.step - then.resumed_from_step))

    def _lasting(self, at: float, seconds: float) -> set[str]:
        """The faults that lasted for a while between `at` and `seconds` later."""
        kills = {fault.name for fault in FAULTS if fault.kills}  # what lasts of these is waiting for an opportunity
        lasting = [each for each in self.injected if each.what and each.lasted > 2 and each.fault not in kills]
        found = {each.fault for each in lasting if each.at < at + seconds and each.at + each.lasted > at}
        return found or {"nothing"}


def _firsts(hits: Sequence[Hit]) -> list[Hit]:
    """The first hit of each attempt."""
    found: dict[tuple[str, int], Hit] = {}
    for hit in hits:
        found.setdefault((hit.job_id, hit.attempt), hit)
    return list(found.values())
