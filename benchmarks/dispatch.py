"""P9 and P10: from a submission to its child, over bare Celery's; and from a claim to the first training step."""

import statistics
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.product import DATASET, Product, product, until
from benchmarks.timing import Figure, Ratio
from benchmarks.workers import BARE
from services import datasets, submission, views
from services.datasets import Registration
from services.submission import Request
from services.tables import TERMINAL, Dataset
from tests.support.cluster import ADMIN, tiny_spec

SUBMISSIONS, TRAININGS = 100, 7


def measure() -> Iterator[tuple[str, Ratio | Figure]]:
    """(goal, what was measured)."""
    with product() as running:
        ours, bare = running.folder / "probed", running.folder / "bare"
        with (
            running.process("benchmarks.workers", "probed", str(ours)),
            running.process("benchmarks.workers", "bare", str(bare)),
        ):
            _submitted(running, ours)  # the fork server has then imported everything
            _sent(running, bare, "warm")
            yield from _dispatch(running, ours, bare)
            _claim_to_step(running, ours)
            seconds = [_claim_to_step(running, ours) for _ in range(TRAININGS)]
            what = f"seconds from the claim of a training to its first step told, median of {TRAININGS}; slowest "
            yield "P10", Figure(f"{what}{max(seconds):.2f}", statistics.median(seconds))


def _dispatch(running: Product, ours: Path, bare: Path) -> Iterator[tuple[str, Ratio | Figure]]:
    mine, theirs = [], []
    for number in range(SUBMISSIONS):
        if number % 2:
            mine.append(_submitted(running, ours))
            theirs.append(_sent(running, bare, str(number)))
        else:
            theirs.append(_sent(running, bare, str(number)))
            mine.append(_submitted(running, ours))
    ratios = [one / other for one, other in zip(mine, theirs, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    medians = statistics.median(mine), statistics.median(theirs)
    told = "from submit to a running child", "from bare Celery's submit to a running task"
    yield "P9, p50", Ratio(*told, middle, (low, high), SUBMISSIONS, medians)
    last = [statistics.quantiles(times, n=100)[98] for times in (mine, theirs)]
    yield (
        "P9, p99",
        Figure(f"seconds more than bare Celery's at the 99th of 100 ({SUBMISSIONS} each)", last[0] - last[1]),
    )


def _submitted(running: Product, told: Path) -> float:
    """A registration of a folder that is not there: claimed, started and refused at once."""
    begun = time.time()
    asked = Registration(name=f"none-{time.monotonic_ns()}", format="ham10000", folder="/none")
    dataset_id, _ = datasets.register(running.context, ADMIN, asked)

    def ended() -> bool | None:
        with running.context.database.read() as session:
            return True if session.get_one(Dataset, dataset_id).state == "refused" else None

    until(ended, "a registration is refused")
    time.sleep(0.05)  # the slot asks for more, finds nothing and is idle again
    return _last(told, "running") - begun


def _sent(running: Product, told: Path, number: str) -> float:
    begun = time.time()
    running.context.celery.send_task(BARE, (number,), queue=BARE)
    until(lambda: True if told.exists() and f" {number} " in told.read_text() else None, "a task runs")
    return _last(told, "running") - begun


def _claim_to_step(running: Product, told: Path) -> float:
    request = Request(kind="train", dataset=DATASET, spec=tiny_spec(1))
    job, _ = submission.submit(running.context, ADMIN, request)

    def ended() -> bool | None:
        state = views.get_job(running.context.database, ADMIN, job["id"])["state"]
        return True if state in TERMINAL else None

    until(ended, "a training ends")
    return _last(told, "trains") - _last(told, "claimed")


def _last(told: Path, what: str) -> float:
    lines = [line.split() for line in told.read_text(encoding="utf-8").splitlines()]
    return float([line for line in lines if line[0] == what][-1][2])
