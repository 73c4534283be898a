"""The product as processes: workers and a scheduler on whatever database, Redis and store a test names."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from services.context import Context
from services.settings import Settings
from services.tokens import Principal
from tests.support.databases import make_schema

ADMIN = Principal("ada", "admin")
T = TypeVar("T")


class Process:
    """One of the product's own commands. module: what stands in for the command itself."""

    def __init__(self, settings: Settings, arguments: list[str], log: Path, module: str = "services.cli") -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("BGPANET_")}
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                env={**environment, **replace(settings, offline=True).environment()},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        self.log = log

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self.process.wait()

    def stop(self, timeout: float = 30) -> int:
        self.signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"it did not stop on SIGTERM; its log:\n{self.log.read_text()}") from None


class Cluster:
    """Processes on one set of services, and the same services seen from the test."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.context, self.folder = Context(settings), folder
        self.processes: list[Process] = []
        make_schema(settings.database_url)

    def start(self, *arguments: str, **settings: Any) -> Process:
        log = self.folder / f"{'-'.join(arguments).replace('/', '_')}-{len(self.processes)}.log"
        process = Process(replace(self.context.settings, **settings), list(arguments), log)
        self.processes.append(process)
        return process

    def worker(self, name: str, **settings: Any) -> Process:
        return self.start("worker", "--name", name, "--threads", "1", **settings)

    def scheduler(self) -> Process:
        return self.start("scheduler")

    def close(self) -> None:
        for process in self.processes:
            process.kill()
        self.context.database.close()

    def logs(self) -> str:
        return "\n".join(f"── {p.log.name}\n{p.log.read_text()}" for p in self.processes)

    def until(self, look: Callable[[], T | None], what: str, seconds: float = 120) -> T:
        """What `look` gives as soon as it gives something. Fails with the processes' logs."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if (found := look()) is not None:
                return found
            time.sleep(0.05)
        raise AssertionError(f"{what}: not within {seconds:.0f} s\n{self.logs()}")


@contextlib.contextmanager
def cluster(settings: Settings, folder: Path) -> Iterator[Cluster]:
    """A cluster whose processes are all gone afterwards."""
    made = Cluster(settings, folder)
    try:
        yield made
    finally:
        made.close()


def tiny_spec(epochs: int = 3, **training: Any) -> dict[str, Any]:
    """A training of seconds."""
    return {
        "model": {"name": "bgpanet_micro"},
        "image_size": 32,
        "split": {"folds": 2, "validation_folds": 2},
        "training": {"epochs": epochs, "batch_size": 16, "learning_rate": 1e-3, "precision": "fp32", **training},
    }
