"""A job that asks for two GPUs, as a worker starts it: really two processes under torchrun, with gloo on a CPU.

Only how many GPUs there are is made up.
"""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from bgpanet.events import CheckpointWritten, Log, Result, Started, parse_event
from services.worker.child import Child, ForkServer, Request
from tests.unit.services.worker.test_child import drawn, events, request, status

TWO_GPUS = "import torch\ntorch.cuda.device_count = lambda: 2\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    folder = tmp_path_factory.mktemp("site")
    (folder / "sitecustomize.py").write_text(TWO_GPUS)
    path = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
    made = ForkServer({"PYTHONPATH": path})
    yield made
    made.close()


def of_two(folder: Path, epochs: int) -> Request:
    training = {"epochs": epochs, "patience": epochs, "batch_size": 4, "precision": "fp32", "checkpoint_seconds": 1000}
    return request(folder, **drawn(folder), training=training, resources={"gpus": 2})


def processes_that_train(child: Child) -> list[psutil.Process]:
    """The two processes, once the first has said that it trains."""
    with os.fdopen(os.dup(child.events), "rb") as pipe:
        next(event for event in map(parse_event, pipe) if isinstance(event, Started))
    return [process for process in psutil.Process(child.pid).children() if "--events" in process.cmdline()]


def test_a_job_of_two_gpus_is_one_run_that_one_of_its_processes_tells_of(server: ForkServer, tmp_path: Path) -> None:
    child = server.start(of_two(tmp_path, epochs=1))
    said = events(child)
    assert status(server, child) == 0
    assert sum(isinstance(event, Started) for event in said) == 1
    assert any("2 processes" in event.message for event in said if isinstance(event, Log))
    assert isinstance(said[-1], Result)
    assert (tmp_path / "output" / "report.json").is_file()


def test_it_stops_with_a_checkpoint_when_it_is_told_to(server: ForkServer, tmp_path: Path) -> None:
    child = server.start(of_two(tmp_path, epochs=1000))
    assert len(processes_that_train(child)) == 2
    child.signal(signal.SIGTERM)
    said = events(child)
    assert status(server, child) == 75
    assert any(isinstance(event, CheckpointWritten) for event in said)


def test_a_killed_process_counts_as_a_killed_run_and_none_is_left(server: ForkServer, tmp_path: Path) -> None:
    child = server.start(of_two(tmp_path, epochs=1000))
    both = processes_that_train(child)
    both[1].kill()
    events(child)
    assert status(server, child) == -signal.SIGKILL
    psutil.wait_procs(both, timeout=240)
    assert not any(process.is_running() for process in both)


def test_what_is_killed_at_the_end_of_its_grace_leaves_none(server: ForkServer, tmp_path: Path) -> None:
    child = server.start(of_two(tmp_path, epochs=1000))
    both = processes_that_train(child)
    child.signal(signal.SIGKILL)
    assert status(server, child) == -signal.SIGKILL
    psutil.wait_procs(both, timeout=240)
    assert not any(process.is_running() for process in both)
