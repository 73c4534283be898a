"""The product's worker with a probe or a stand-in put into its slots, and a bare Celery worker beside it.

    python -m benchmarks.workers probed FILE            tells when jobs are claimed, run, and train their first step
    python -m benchmarks.workers sleeping SLOTS SECONDS its children sleep: everything but computing is real
    python -m benchmarks.workers bare FILE              tells when tasks run

What is told is a line in FILE: what, of which job, and when (seconds since 1970).
"""

import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bgpanet.events import Event, Metrics
from services.context import Context
from services.settings import Settings
from services.worker import WorkerOptions, child, run_worker, slots
from services.worker.supervisor import Attempt

BARE = "benchmarks.bare"


def probed(told: Path) -> None:
    """One slot on real children, which tells what happens when."""
    tell = _teller(told)

    class Probed(Attempt):
        def run(self) -> None:
            job = self.claim.lease.job_id
            tell("claimed", job)
            server, start = self.server, self.server.start

            def started(*order: Any) -> child.Child:
                made = start(*order)
                tell("running", job)
                return made

            server.start = started  # type: ignore[method-assign,assignment]
            self._trains = False
            try:
                super().run()
            finally:
                server.start = start  # type: ignore[method-assign]

        def _handle(self, event: Event) -> None:
            if isinstance(event, Metrics) and not self._trains:
                self._trains = True
                tell("trains", self.claim.lease.job_id)
            super()._handle(event)

    vars(slots)["Attempt"] = Probed
    run_worker(Context(Settings.load()), WorkerOptions(name="probed", slots=1, threads=1))


def sleeping(count: int, seconds: float) -> None:
    """So many slots whose children sleep."""

    class Sleeping(child.ForkServer):
        def _spawn(self) -> None:
            self.channel, theirs = socket.socketpair()
            with theirs:
                self._process = subprocess.Popen(  # noqa: S603 - our own module
                    [sys.executable, "-m", "benchmarks.stand_in", str(theirs.fileno()), str(seconds)],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,
                )
            self._lines, self._ready = b"", False

    vars(slots)["ForkServer"] = Sleeping
    run_worker(Context(Settings.load()), WorkerOptions(name="sleeping", slots=count, threads=1))


def bare(told: Path) -> None:
    """Celery's own worker on one thread, with the product's settings of it."""
    tell, app = _teller(told), Context(Settings.load()).celery

    @app.task(name=BARE)  # type: ignore[untyped-decorator]
    def run(number: str) -> None:
        tell("running", number)

    quiet = ["--loglevel=WARNING", "--without-gossip", "--without-mingle", "--without-heartbeat"]
    app.worker_main(["worker", "--pool=threads", "--concurrency=1", f"--queues={BARE}", "--hostname=bare", *quiet])


def _teller(path: Path) -> Callable[[str, str], None]:
    def tell(what: str, job: str) -> None:
        at = time.time()
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{what} {job} {at}\n")

    return tell


if __name__ == "__main__":
    kind, *rest = sys.argv[1:]
    if kind == "sleeping":
        sleeping(int(rest[0]), float(rest[1]))
    else:
        {"probed": probed, "bare": bare}[kind](Path(rest[0]))
