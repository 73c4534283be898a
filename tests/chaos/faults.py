"""The faults: what each does to the running product, and how it is healed.

A fault returns what it did, or None where there was nothing to do it to. It draws its victims from a generator of its
own, so that a plan of faults is replayed by its seed; the interleaving is the machine's.
"""

import contextlib
import hashlib
import random
import resource
import signal
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import redis
from sqlalchemy.exc import SQLAlchemyError

from services.errors import StorageError
from tests.chaos.product import WorkerPart
from tests.chaos.relay import Trap

if TYPE_CHECKING:
    from tests.chaos.drill import Drill

BOTH = frozenset({"postgresql", "sqlite"})
POSTGRESQL, SQLITE = frozenset({"postgresql"}), frozenset({"sqlite"})
FRAIL_ATTEMPTS = 3  # after so many losses in a row the job that kills every worker fails; the product's default
EDGE_SECONDS = 8.0  # for which an edge of a job's way is waited for


@dataclass(frozen=True)
class Running:
    """A job that a worker of ours has."""

    job_id: str
    attempt: int
    worker: WorkerPart
    kind: str

    @property
    def text(self) -> str:
        return f"{self.kind} {self.job_id[-6:]}, attempt {self.attempt}, on {self.worker.name}"


Inject = Callable[["Drill", random.Random], str | None]


@dataclass(frozen=True)
class Fault:
    """name: for people and `--only`. share: how often among its like. kills: whether it kills a process of ours.

    beside: whether other faults go on while it lasts.
    """

    name: str
    inject: Inject
    share: float
    kills: bool
    beside: bool = False
    databases: frozenset[str] = BOTH


# ── Kills ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def kill_child(drill: "Drill", rng: random.Random) -> str | None:
    """SIGKILL of the process that trains, at a random time."""
    victim = drill.pick(rng)
    child = None if victim is None else victim.worker.child()
    if victim is None or child is None:
        return None
    drill.killing(victim)
    child.kill()
    return victim.text


def kill_child_saving(drill: "Drill", rng: random.Random) -> str | None:
    """SIGKILL of the child while a checkpoint of it is half written."""
    deadline = time.monotonic() + EDGE_SECONDS
    scratch = drill.product.settings.scratch
    while time.monotonic() < deadline:
        for partial in scratch.glob("*/output/checkpoints/.step-*"):
            victim = drill.running_in(partial.parents[2].name)
            child = None if victim is None else victim.worker.child()
            if victim is None or child is None:
                continue
            with contextlib.suppress(psutil.Error):
                child.suspend()
                if partial.exists():
                    drill.killing(victim)
                    child.kill()
                    return f"{victim.text}, {partial.name}"
                child.resume()
        time.sleep(0.005)
    return None


def kill_worker(drill: "Drill", rng: random.Random) -> str | None:
    """SIGKILL of a worker, at a random time."""
    victim = drill.pick(rng)
    if victim is None:
        return None
    drill.killing(victim)
    victim.worker.kill()
    return victim.text


def kill_fork_server(drill: "Drill", rng: random.Random) -> str | None:
    """SIGKILL of the process from which children are forked, and with it of the child."""
    victim = drill.pick(rng)
    server = None if victim is None else victim.worker.fork_server()
    if victim is None or server is None:
        return None
    drill.killing(victim)
    server.kill()
    return victim.text


def kill_part(name: str) -> Inject:
    """SIGKILL of another process of the product."""

    def inject(drill: "Drill", rng: random.Random) -> str | None:
        part = drill.product.parts[rng.choice([part for part in drill.product.parts if part.startswith(name)])]
        part.kill()
        return part.name

    return inject


# ── Kills at an edge of a job's way ───────────────────────────────────────────────────────────────────────────────
# With a relay the request itself is the edge: it is held while the worker is killed. Without one the worker is stopped
# as soon as the edge seems to be there, looked at, and killed or let go.


def _stop_and_look(drill: "Drill", is_there: Callable[[Running], bool]) -> str | None:
    deadline = time.monotonic() + EDGE_SECONDS
    while time.monotonic() < deadline:
        for victim in drill.running():
            if drill.is_held(victim.worker) or not is_there(victim):
                continue
            with _stopped(victim.worker):
                if drill.still(victim) and is_there(victim):
                    drill.killing(victim)
                    victim.worker.kill()
                    return victim.text
        time.sleep(0.005)
    return None


def _trapped(drill: "Drill", rng: random.Random, relay: str, at: str, passes_on: bool) -> str | None:
    """Kills whichever worker first makes the request."""
    traps: list[tuple[Any, Trap]] = []
    caught: list[str] = []
    for worker in drill.free_workers():
        trap = Trap(at, passes_on)

        def spring(worker: WorkerPart = worker) -> None:
            if not caught:
                victim = drill.job_of(worker)
                caught.append(victim.text if victim is not None else worker.name)
                if victim is not None:
                    drill.killing(victim)
                worker.kill()

        trap.spring = spring
        traps.append((getattr(worker, relay), trap))
        getattr(worker, relay).set(trap)
    deadline = time.monotonic() + EDGE_SECONDS
    while not any(trap.sprung.is_set() for _, trap in traps) and time.monotonic() < deadline:
        time.sleep(0.01)
    for door, _ in traps:
        door.clear()
    return caught[0] if caught else None


def kill_worker_after_claim(drill: "Drill", rng: random.Random) -> str | None:
    """The claim is committed, and the worker dies before it hears of it, or before its child has begun."""
    if drill.product.database == "postgresql":
        return _trapped(drill, rng, "sql", "INSERT INTO attempts", True)
    return _stop_and_look(drill, lambda victim: drill.attempt(victim).resumed_from_step is None)


def kill_worker_uploading(drill: "Drill", rng: random.Random) -> str | None:
    """A file is half stored."""
    if drill.product.database == "postgresql":
        return _trapped(drill, rng, "s3", "/jobs/", False)
    store = drill.product.settings.home / "artifacts" / "jobs"
    return _stop_and_look(drill, lambda v: any(store.glob(f"{v.job_id}/{v.attempt}/.*")))


def kill_worker_uploaded(drill: "Drill", rng: random.Random) -> str | None:
    """A checkpoint is stored whole, and not yet recorded."""
    if drill.product.database == "postgresql":
        return _trapped(drill, rng, "sql", "INSERT INTO checkpoints", False)

    def is_stored(victim: Running) -> bool:
        folder = drill.product.settings.scratch / f"{victim.job_id}-{victim.attempt}" / "uploading"
        for staged in folder.glob("step-*"):
            keys = _keys(victim, staged)
            exists = drill.product.context.store.exists
            if keys and any(all(exists(f"{key}-{copy}") for key in keys) for copy in (0, 1)):
                return int(staged.name.split("-")[1]) not in {row.step for row in drill.checkpoints(victim.job_id)}
        return False

    return _stop_and_look(drill, is_stored)


def _keys(victim: Running, folder: Path) -> list[str]:
    try:
        digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()]
    except OSError:
        return []
    return [f"jobs/{victim.job_id}/{victim.attempt}/{digest}" for digest in digests]


def kill_worker_before_finish(drill: "Drill", rng: random.Random) -> str | None:
    """The result is stored, and its end not yet written."""
    if drill.product.database == "postgresql":
        return _trapped(drill, rng, "sql", "INSERT INTO artifacts", False)
    scratch = drill.product.settings.scratch

    def is_done(victim: Running) -> bool:
        output = scratch / f"{victim.job_id}-{victim.attempt}" / "output"
        for file in output.glob("**/predictions.parquet"):
            with contextlib.suppress(OSError):
                digest = hashlib.sha256(file.read_bytes()).hexdigest()
                return drill.product.context.store.exists(f"jobs/{victim.job_id}/{victim.attempt}/{digest}")
        return False

    return _stop_and_look(drill, is_done)


def kill_worker_finishing(drill: "Drill", rng: random.Random) -> str | None:
    """The end is committed, and the worker dies before it hears of it."""
    return _trapped(drill, rng, "sql", "INSERT INTO artifacts", True)


# ── Workers that are slow, leave, or are wrong ────────────────────────────────────────────────────────────────────


def stop_worker_past_lease(drill: "Drill", rng: random.Random) -> str | None:
    """SIGSTOP of a worker until another has its job, then SIGCONT: it wakes up with a lease that it has lost."""
    victim = drill.pick(rng)
    if victim is None:
        return None
    with drill.holding(victim.worker):
        drill.killing(victim, "stopped")
        victim.worker.signal(signal.SIGSTOP)
        try:
            drill.wait(lambda: not drill.still(victim), drill.product.settings.lease_seconds + 10)
            time.sleep(rng.uniform(0, 2))
        finally:
            victim.worker.signal(signal.SIGCONT)
    return victim.text


def terminate_worker(drill: "Drill", rng: random.Random) -> str | None:
    """SIGTERM: a checkpoint, the lease given back, gone within a short grace."""
    victim = drill.pick(rng)
    if victim is None or victim.worker.process is None or victim.worker.child() is None:
        return None  # one that still starts first gets ready
    process = victim.worker.process.process
    victim.worker.signal(signal.SIGTERM)
    left = drill.wait(lambda: process.poll() is not None, drill.product.settings.grace_seconds + 60)
    if not left:
        raise AssertionError(f"{victim.worker.name} did not leave on SIGTERM")
    return victim.text


def hang_child(drill: "Drill", rng: random.Random) -> str | None:
    """SIGSTOP of a child for good: its job ends as `stalled`; where the database was away for longer than the lease
    meanwhile, the attempt was lost before, and the next one goes on."""
    victim = drill.job_of_our_own(drill.load.ordinary(), "its child hangs")
    if victim is None:
        return None
    with drill.holding(victim.worker):
        child = victim.worker.child()
        if child is None or not drill.still(victim):
            return None
        drill.allow(victim, "stalled")
        child.suspend()
        if not drill.wait(lambda: not drill.still(victim), drill.product.settings.stall_seconds + 20):
            raise AssertionError(f"a child that hangs was not ended: {victim.text}")
    outcome = drill.attempt(victim).outcome
    if outcome == "stalled":
        drill.expect(victim, "stalled")
    elif outcome != "worker_lost":
        raise AssertionError(f"a child that hangs ended as {outcome}: {victim.text}")
    return f"{victim.text}: {outcome}"


def kill_every_worker(drill: "Drill", rng: random.Random) -> str | None:
    """A job that kills every worker that takes it: it fails once it was lost `max_attempts` times in a row."""
    ends = frozenset({"worker_lost"})
    job = drill.load.submit_frail(drill.load.ordinary(), FRAIL_ATTEMPTS, ends, "kills every worker")
    killed: set[int] = set()
    deadline = time.monotonic() + 60 * FRAIL_ATTEMPTS
    while not drill.ended(job.id):
        if time.monotonic() > deadline:
            raise AssertionError(f"job {job.id} was lost {len(killed)} times and has not ended")
        with contextlib.suppress(SQLAlchemyError):
            for victim in drill.running():
                if victim.job_id == job.id and victim.attempt not in killed:
                    killed.add(victim.attempt)
                    drill.killing(victim)
                    victim.worker.kill()
        time.sleep(0.005)
    drill.count_kills(len(killed))
    return f"train {job.id[-6:]}, {len(killed)} times"


# ── Memory and disk ───────────────────────────────────────────────────────────────────────────────────────────────


def fill_disk_of_child(drill: "Drill", rng: random.Random) -> str | None:
    """A child cannot write files any more (limit on their size): its checkpoint fails, and the job is tried again."""
    victim = drill.pick(rng, kind="train")
    child = None if victim is None else victim.worker.child()
    if victim is None or child is None:
        return None
    _limit(child.pid, resource.RLIMIT_FSIZE, 4096)
    drill.wait(lambda: not drill.still(victim), 10)
    with contextlib.suppress(ProcessLookupError):
        _limit(child.pid, resource.RLIMIT_FSIZE, resource.RLIM_INFINITY)
    return victim.text


def fill_disk_of_worker(drill: "Drill", rng: random.Random) -> str | None:
    """A worker cannot write files for a while: nothing is fetched or stored, on SQLite nothing is recorded."""
    victim = drill.pick(rng)
    if victim is None:
        return None
    pid = victim.worker.pid
    try:
        _limit(pid, resource.RLIMIT_FSIZE, 4096)
        time.sleep(rng.uniform(1, 4))
    except ProcessLookupError:
        return None
    finally:
        with contextlib.suppress(ProcessLookupError):
            _limit(pid, resource.RLIMIT_FSIZE, resource.RLIM_INFINITY)
    return victim.text


def _limit(pid: int, which: int, soft: int) -> None:
    """Raises ProcessLookupError."""
    _, hard = resource.prlimit(pid, which)
    resource.prlimit(pid, which, (soft, hard))


def exhaust_memory(drill: "Drill", rng: random.Random) -> str | None:
    """A child gets no more memory: once it is tried again with half as many images at once."""
    victim = drill.job_of_our_own(drill.load.ordinary(), "its child gets no memory")
    if victim is None:
        return None
    with drill.holding(victim.worker):
        child = victim.worker.child()
        if child is None or not drill.still(victim):
            return None
        # With parts of a batch the sums are others in their last bits, so there is nothing to compare.
        # Nor can a library be held to say so: one whose thread gets no memory may wait for it for ever.
        drill.allow(victim, "out_of_memory", compare=False)
        drill.allow(victim, "stalled", compare=False)
        _limit(child.pid, resource.RLIMIT_AS, child.memory_info().vms)
        drill.wait(lambda: not drill.still(victim), 20)
        outcome = drill.attempt(victim).outcome
    return f"{victim.text}: {outcome}"


# ── Redis ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def flush_redis(drill: "Drill", rng: random.Random) -> str | None:
    """FLUSHALL: every wake-up is gone."""
    try:
        with redis.Redis.from_url(drill.product.redis.url) as client:
            client.flushall()
    except redis.RedisError:
        return None
    return "FLUSHALL"


def restart_redis(drill: "Drill", rng: random.Random) -> str | None:
    """Redis dies and is there again at once, empty."""
    drill.product.redis.stop()
    drill.product.start_redis()
    return "restarted"


def take_redis_away(drill: "Drill", rng: random.Random) -> str | None:
    """Redis is gone for a while, and comes back empty."""
    drill.product.redis.stop()
    try:
        time.sleep(drill.pace.redis_gone_seconds)
    finally:
        drill.product.start_redis()
    return f"gone for {drill.pace.redis_gone_seconds:.0f} s"


# ── SQL ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def restart_sql(drill: "Drill", rng: random.Random) -> str | None:
    """PostgreSQL is shut down at once, recovers from its log, and is there again."""
    drill.product.restart_sql()
    return "restarted"


def lose_acknowledgements(drill: "Drill", rng: random.Random) -> str | None:
    """A commit reaches the database, its acknowledgement not the worker."""
    at = rng.choice(("INSERT INTO attempts", "UPDATE jobs", "INSERT INTO checkpoints", "INSERT INTO artifacts"))
    traps = [(worker.sql, Trap(at, True)) for worker in drill.free_workers() if worker.sql is not None]
    for relay, trap in traps:
        relay.set(trap)
    drill.wait(lambda: any(trap.sprung.is_set() for _, trap in traps), EDGE_SECONDS)
    for relay, _ in traps:
        relay.clear()
    lost = sum(trap.sprung.is_set() for _, trap in traps)
    return f"{lost} after {at}" if lost else None


def lock_sqlite(drill: "Drill", rng: random.Random) -> str | None:
    """Another program holds SQLite's write lock for longer than a lease."""
    path = drill.product.settings.database_url.removeprefix("sqlite:///")
    with contextlib.closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        time.sleep(drill.product.settings.lease_seconds + rng.uniform(0, 2))
        connection.execute("ROLLBACK")
    return "locked"


# ── The store ─────────────────────────────────────────────────────────────────────────────────────────────────────


def disturb_s3(how: str) -> Inject:
    """S3 answers with an error, late, or breaks off in the middle of a request."""

    def inject(drill: "Drill", rng: random.Random) -> str | None:
        seconds = rng.uniform(2, 6)
        relays = [worker.s3 for worker in drill.product.workers if worker.s3 is not None]
        for relay in relays:
            relay.disturbance = how
        time.sleep(seconds)
        for relay in relays:
            relay.disturbance = None
        return f"{how} for {seconds:.1f} s"

    return inject


def leave_parts(drill: "Drill", rng: random.Random) -> str | None:
    """An upload in parts that is never completed."""
    victim = drill.pick(rng)
    if victim is None:
        return None
    store, content = drill.product.context.store, rng.randbytes(5_000)
    key = f"jobs/{victim.job_id}/{victim.attempt}/{hashlib.sha256(content).hexdigest()}"
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.seek(0)
        parts = store.begin_parts(key)
        store.put_part(key, parts, 1, file, len(content), hashlib.sha256(content).hexdigest())
    if store.exists(key):
        raise AssertionError(f"{key} is visible before its last part")
    return victim.text


def flip_a_bit(drill: "Drill", rng: random.Random) -> str | None:
    """One bit of a job's newest checkpoint changes in the store, and its child dies: it goes on from the one before."""
    for victim in drill.shuffled(rng):
        known = drill.checkpoints(victim.job_id)
        child = victim.worker.child()
        if len(known) < 2 or child is None or any(map(drill.is_damaged, known)):
            continue
        # The worker is stopped meanwhile: a newer checkpoint would make this one of no account.
        with drill.holding(victim.worker), _stopped(victim.worker):
            if drill.checkpoints(victim.job_id)[0].step != known[0].step or not drill.still(victim):
                continue
            name = rng.choice(sorted(name for name in known[0].files if name.endswith(".safetensors")))
            with contextlib.suppress(StorageError):
                drill.flip(known[0].files[name]["key"], rng)
                drill.killing(victim, "bit", floor=known[1].step)
                with contextlib.suppress(psutil.Error):
                    child.kill()
                return f"{victim.text}, step {known[0].step}, {name}"
    return None


@contextlib.contextmanager
def _stopped(worker: WorkerPart) -> Iterator[None]:
    worker.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        worker.signal(signal.SIGCONT)


# ── Requests ──────────────────────────────────────────────────────────────────────────────────────────────────────


def submit_at_once(drill: "Drill", rng: random.Random) -> str | None:
    """The same submission 50 times at once is one job."""
    job = drill.load.submit(drill.load.ordinary(), times=50, at_once=50, note="50 times at once")
    return f"train {job.id[-6:]}"


def cancel_while_finishing(drill: "Drill", rng: random.Random) -> str | None:
    """A cancel comes when a job is about to finish: it ends as one or the other, whole."""
    job = drill.load.submit(drill.load.ordinary(), note="cancelled while it finished")
    scratch = drill.product.settings.scratch
    seen = drill.wait(lambda: drill.ended(job.id) or any(scratch.glob(f"{job.id}-*/output/**/predictions.*")), 90)
    time.sleep(rng.uniform(0, 0.4))
    drill.load.cancel(job)
    return f"train {job.id[-6:]}" if seen else None


FAULTS = (
    Fault("kill child", kill_child, 62, kills=True),
    Fault("kill child while it saves", kill_child_saving, 12, kills=True),
    Fault("kill worker", kill_worker, 2, kills=True),
    Fault("kill worker after claim", kill_worker_after_claim, 1.5, kills=True),
    Fault("kill worker while it uploads", kill_worker_uploading, 1.5, kills=True),
    Fault("kill worker before a checkpoint is recorded", kill_worker_uploaded, 1.5, kills=True),
    Fault("kill worker before the end is written", kill_worker_before_finish, 1.5, kills=True),
    Fault("kill worker after the end is written", kill_worker_finishing, 1.5, True, databases=POSTGRESQL),
    Fault("kill fork server", kill_fork_server, 3, kills=True),
    Fault("kill scheduler", kill_part("scheduler"), 3, kills=True),
    Fault("kill API", kill_part("api"), 2, kills=True),
    Fault("stop worker past its lease", stop_worker_past_lease, 2, False, beside=True),
    Fault("SIGTERM worker", terminate_worker, 1, False, beside=True),
    Fault("hang child", hang_child, 0.7, False, beside=True),
    Fault("job that kills every worker", kill_every_worker, 0.3, False, beside=True),
    Fault("disk full, child", fill_disk_of_child, 1, False, beside=True),
    Fault("disk full, worker", fill_disk_of_worker, 1, False, beside=True),
    Fault("out of memory", exhaust_memory, 0.7, False, beside=True),
    Fault("Redis FLUSHALL", flush_redis, 1, False),
    Fault("Redis restarted", restart_redis, 1, False, beside=True),
    Fault("Redis gone", take_redis_away, 0.5, False, beside=True),
    Fault("PostgreSQL restarted", restart_sql, 1, False, beside=True, databases=POSTGRESQL),
    Fault("acknowledgement of a commit lost", lose_acknowledgements, 2, False, True, POSTGRESQL),
    Fault("SQLite locked", lock_sqlite, 1, False, beside=True, databases=SQLITE),
    Fault("S3 500", disturb_s3("500"), 1, False, True, POSTGRESQL),
    Fault("S3 503", disturb_s3("503"), 1, False, True, POSTGRESQL),
    Fault("S3 slow", disturb_s3("slow"), 1, False, True, POSTGRESQL),
    Fault("S3 cut off", disturb_s3("cut"), 1, False, True, POSTGRESQL),
    Fault("upload in parts never completed", leave_parts, 1, False),
    Fault("bit of the newest checkpoint flipped", flip_a_bit, 1, False),
    Fault("50 equal submissions at once", submit_at_once, 0.5, False),
    Fault("cancel while it finishes", cancel_while_finishing, 1, False, beside=True),
)
"""All of them. The kills' shares are of kills, the others' of what is injected between kills."""

Unreachable = (SQLAlchemyError, StorageError, OSError, psutil.Error)
"""What a look at the product may raise while another fault has part of it away."""
