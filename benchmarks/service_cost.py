"""P11: a training through the queue, from its submission to its end, over the same run started without any service.

Without a service means: a child of a fork server that has imported everything, as a worker has it, but no database,
queue, lease, uploads or supervisor; its few seconds of imports, which `python -m bgpanet` needs and a warm worker does
not, count on neither side.
"""

import json
import time
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import select

from benchmarks.product import DATASET, Product, product, until
from benchmarks.timing import Ratio, compare
from services import submission
from services.submission import Request
from services.tables import TERMINAL, Job
from services.worker.child import ForkServer
from services.worker.child import Request as Run
from tests.support.cluster import ADMIN, tiny_spec

EPOCHS, PAIRS = 300, 7


def measure() -> Iterator[tuple[str, Ratio]]:
    """(goal, what was measured)."""
    with product(lesions=60) as running, running.process("services.cli", "worker", "--slots", "1", "--threads", "1"):
        spec = tiny_spec(EPOCHS, patience=EPOCHS)
        _queued(running, tiny_spec(1))  # the data set is then fetched and decoded
        server = ForkServer({})
        try:
            _alone(running, server, tiny_spec(1), running.folder / "warm")
            yield (
                "P11",
                compare(
                    f"a training of {EPOCHS} epochs through the queue, submission to end",
                    lambda: _queued(running, spec),
                    "the same run without a service",
                    lambda: _alone(running, server, spec, running.folder / f"alone-{time.monotonic_ns()}"),
                    pairs=PAIRS,
                ),
            )
        finally:
            server.close()


def _queued(running: Product, spec: dict[str, object]) -> float:
    """Seconds from submission to end, by the database's clock: asking often when it ends would slow what is timed."""
    job, _ = submission.submit(running.context, ADMIN, Request(kind="train", dataset=DATASET, spec=spec))
    times = select(Job.state, Job.created_at, Job.finished_at, Job.error).where(Job.id == job["id"])

    def ended() -> float | None:
        with running.context.database.read() as session:
            found = session.execute(times).one()
        if found.state in TERMINAL and found.state != "succeeded":
            raise RuntimeError(f"{found.state}: {found.error}")
        return (found.finished_at - found.created_at) / 1000 if found.state == "succeeded" else None

    return until(ended, "a training ends", seconds=600, every=0.5)


def _alone(running: Product, server: ForkServer, spec: dict[str, object], output: Path) -> None:
    settings = running.context.settings
    packed = next((settings.cache / "datasets").iterdir())
    output.mkdir()
    written = output / "spec.json"
    written.write_text(json.dumps({**spec, "data": {"format": "packed", "path": str(packed)}}), encoding="utf-8")
    child = server.start(Run("train", written, output / "output", settings.cache / "pixels", 1))
    try:
        with open(child.events, "rb", closefd=False) as events, open(child.text, "rb", closefd=False) as text:
            events.read()
            text.read()
        while (message := server.receive(60.0)).get("ended") != child.pid:
            pass
        if message["status"] != 0:
            raise RuntimeError(f"the run ended with status {message['status']}")
    finally:
        child.close()
