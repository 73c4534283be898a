"""What jobs and busy slots cost the services that all share, measured on real ones: `python -m benchmarks.rates`.

Children sleep, so that 16 slots fit a small machine. Two rounds with jobs of different lengths tell what a job costs
once and what a busy slot costs a second. What it writes, `benchmarks/scaling_model.py` computes with.
"""

import contextlib
import datetime
import json
import os
import platform
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import redis
from sqlalchemy import func, select, text

from benchmarks.product import DATASET, Product, product, until
from bgpanet.data import synthetic
from services import jobs, submission
from services.database import Database
from services.order import Offer
from services.submission import Request
from services.tables import Job, Worker
from tests.support.cluster import ADMIN, tiny_spec

RESULTS = Path(__file__).parent / "results"
SLOTS, ROUND = 16, 32
LENGTHS = (4.0, 12.0)  # seconds that children sleep
TRY_SECONDS = 4.0  # for each figure of what a server can do
WAITING = 480  # jobs that are claimed as fast as can be


@dataclass(frozen=True)
class Rates:
    """Measured. redis: commands; …_per_job: beside what a busy slot costs a second.

    connections: of a worker of so many slots, at most at once. rows_per_said_step, rows_per_epoch: metrics of a
    training. renewals, claims: what this PostgreSQL managed a second; redis_pairs: pushes and pops that Redis did.
    """

    redis_per_job: float
    redis_per_slot_second: float
    connections: dict[int, int]
    rows_per_said_step: int
    rows_per_epoch: int
    renewals: float
    claims: float
    redis_pairs: float


@dataclass(frozen=True)
class Round:
    """What one round took of the services."""

    jobs: int
    slot_seconds: float
    redis: int
    connections: int


def measure() -> Rates:
    """All of it, some minutes."""
    with product() as running:
        alone = {slots: _round(running, slots, slots, 3.0).connections for slots in (1, 4)}
        short, long = (_round(running, SLOTS, ROUND, seconds) for seconds in LENGTHS)
        said, epochs = _metric_rows(running.folder)
        renewals, claims = _renewals(running), _claims(running)
        return Rates(
            *_line(short, long),
            {**alone, SLOTS: max(short.connections, long.connections)},
            said,
            epochs,
            renewals,
            claims,
            _redis_pairs(running),
        )


def _line(short: Round, long: Round) -> tuple[float, float]:
    """Redis commands of (a job, a slot-second): what both rounds fit. They have as many jobs."""
    slope = (long.redis - short.redis) / (long.slot_seconds - short.slot_seconds)
    return (short.redis - slope * short.slot_seconds) / short.jobs, slope


def _round(running: Product, slots: int, count: int, seconds: float) -> Round:
    before = _succeeded(running)
    with running.process("benchmarks.workers", "sleeping", str(slots), str(seconds)):
        until(lambda: True if _slots(running) == slots else None, "slots are there")
        commands = _redis_commands(running)
        begun = time.perf_counter()
        peak = [0]
        with _watching(lambda: peak.__setitem__(0, max(peak[0], _connections(running)))):
            for _ in range(count):
                submission.submit(running.context, ADMIN, Request(kind="train", dataset=DATASET, spec=tiny_spec(1)))
            until(lambda: True if _succeeded(running) - before == count else None, "all succeed", seconds=600)
        busy = slots * (time.perf_counter() - begun)
        taken = Round(count, busy, _redis_commands(running) - commands, peak[0])
    until(lambda: True if _slots(running) == 0 else None, "the worker has left")
    return taken


def _connections(running: Product) -> int:
    """Of the worker: all but those of this process."""
    mine = running.context.database.engine.pool.checkedout() + running.context.database.engine.pool.checkedin()  # type: ignore[attr-defined]
    with running.context.database.read() as session:
        all_of_them = text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
        return int(session.scalar(all_of_them) or 0) - int(mine)


def _succeeded(running: Product) -> int:
    with running.context.database.read() as session:
        return session.scalar(select(func.count()).where(Job.state == "succeeded", Job.kind == "train")) or 0


def _slots(running: Product) -> int:
    with running.context.database.read() as session:
        return session.scalar(select(func.count()).select_from(Worker)) or 0


def _redis_commands(running: Product) -> int:
    with redis.Redis.from_url(running.context.settings.redis_url) as client:
        return int(client.info("stats")["total_commands_processed"])


@contextlib.contextmanager
def _watching(look: Callable[[], None]) -> Iterator[None]:
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.25):
            look()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _metric_rows(folder: Path) -> tuple[int, int]:
    """Rows of metrics at a step that is told, and at an epoch's end, of a real training of two epochs."""
    synthetic.draw(folder / "learned", lesions=24)
    spec = tiny_spec(2, batch_size=4) | {"data": {"format": "ham10000", "path": str(folder / "learned")}}
    (folder / "spec.json").write_text(json.dumps(spec), encoding="utf-8")
    told = folder / "events"
    command = ["bgpanet", "train", str(folder / "spec.json"), "--output", str(folder / "run"), "--events", str(told)]
    subprocess.run([sys.executable, "-m", *command], check=True)  # noqa: S603
    events = [json.loads(line) for line in told.read_text(encoding="utf-8").splitlines()]
    names = Counter(name for event in events if event["type"] == "metrics" for name in event["values"])
    return sum(count > 2 for count in names.values()), sum(count == 2 for count in names.values())


def _renewals(running: Product) -> float:
    """Leases that 16 threads renew a second, each its own."""
    database, offer = Database(running.context.settings.database_url), Offer(("any", "cpu"))
    for _ in range(SLOTS):
        submission.submit(running.context, ADMIN, Request(kind="train", dataset=DATASET, spec=tiny_spec(1)))
    claims = [jobs.claim(database, f"bench/{number}", offer, 300) for number in range(SLOTS)]
    leases = [claim.lease for claim in claims if claim is not None]
    count = _together([lambda lease=lease: jobs.renew(database, lease, 300) for lease in leases])  # type: ignore[misc]
    database.close()
    return count


def _claims(running: Product) -> float:
    """Claims a second by 16 threads, until all of 480 waiting jobs are taken."""
    database, offer = Database(running.context.settings.database_url), Offer(("any", "cpu"))
    for _ in range(WAITING):
        submission.submit(running.context, ADMIN, Request(kind="train", dataset=DATASET, spec=tiny_spec(1)))

    def take(number: int) -> int:
        return sum(1 for _ in iter(lambda: jobs.claim(database, f"bench/{number}", offer, 300), None))

    begun = time.perf_counter()
    with ThreadPoolExecutor(SLOTS) as pool:
        taken = sum(pool.map(take, range(SLOTS)))
    rate = taken / (time.perf_counter() - begun)
    database.close()
    return rate


def _together(works: list[Callable[[], object]]) -> float:
    """How often all of them together were done a second."""
    end = time.perf_counter() + TRY_SECONDS

    def again(work: Callable[[], object]) -> int:
        done = 0
        while time.perf_counter() < end:
            done += work() is not None
        return done

    with ThreadPoolExecutor(len(works)) as pool:
        return sum(pool.map(again, works)) / TRY_SECONDS


def _redis_pairs(running: Product) -> float:
    """A push and a pop, one after the other, by one client."""
    with redis.Redis.from_url(running.context.settings.redis_url) as client:
        end, done = time.perf_counter() + TRY_SECONDS, 0
        while time.perf_counter() < end:
            client.lpush("bench", "x")
            client.rpop("bench")
            done += 1
    return done / TRY_SECONDS


def main() -> None:
    kind = f"cpu-{platform.machine()}-{os.cpu_count()}"
    rates = asdict(measure())
    record = {"date": datetime.date.today().isoformat(), "kind": kind, "load": os.getloadavg()[2], "rates": rates}
    path = RESULTS / f"{record['date']}-rates-{kind}.json"
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(f"{path}\n{json.dumps(rates, indent=2)}")


if __name__ == "__main__":
    main()
