"""P13: N jobs of fixed length on 16 worker slots, over what would be linear. Children sleep; all else is real."""

import time
from collections.abc import Iterator

from sqlalchemy import func, select

from benchmarks.product import DATASET, Product, product, until
from benchmarks.timing import Figure
from services import submission
from services.submission import Request
from services.tables import Job, Worker
from tests.support.cluster import ADMIN, tiny_spec

SLOTS, JOBS, SECONDS = 16, 192, 5.0


def measure() -> Iterator[tuple[str, Figure]]:
    """(goal, what was measured)."""
    with product() as running, running.process("benchmarks.workers", "sleeping", str(SLOTS), str(SECONDS)):
        until(lambda: True if _count(running, Worker.name.is_not(None)) == SLOTS else None, "slots are there")
        begun = time.perf_counter()
        for _ in range(JOBS):
            submission.submit(running.context, ADMIN, Request(kind="train", dataset=DATASET, spec=tiny_spec(1)))
        done = (Job.state == "succeeded") & (Job.kind == "train")
        until(lambda: True if _count(running, done) == JOBS else None, "all jobs succeed", seconds=300)
        share = JOBS * SECONDS / SLOTS / (time.perf_counter() - begun)
    what = f"{JOBS} jobs whose child sleeps {SECONDS:g} s on {SLOTS} slots of one worker, over linear"
    yield "P13", Figure(f"{what}, from the first submission to the last end", share)


def _count(running: Product, which: object) -> int:
    with running.context.database.read() as session:
        return session.scalar(select(func.count()).where(which)) or 0  # type: ignore[arg-type]
