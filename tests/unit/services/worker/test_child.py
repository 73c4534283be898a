"""The fork server as a worker uses it."""

import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from bgpanet.data import synthetic
from bgpanet.events import ArtifactWritten, Event, Failure, Progress, Result, parse_event
from services.worker.child import Child, ForkServer, ForkServerGone, Request


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    made = ForkServer({})
    yield made
    made.close()


def request(folder: Path, kind: str = "train", **spec: Any) -> Request:
    values = {"model": "bgpanet_micro", "image_size": 32, "split": {"folds": 2, "validation_folds": 2}, **spec}
    (folder / "spec.json").write_text(json.dumps(values))
    return Request(kind, folder / "spec.json", folder / "output", folder / "cache", threads=1)


def drawn(folder: Path) -> dict[str, Any]:
    synthetic.draw(folder / "data", lesions=40)
    return {"data": {"format": "ham10000", "path": str(folder / "data")}}


def events(child: Child) -> list[Event]:
    with os.fdopen(os.dup(child.events), "rb") as pipe:
        return [event for event in map(parse_event, pipe) if event is not None]


def status(server: ForkServer, child: Child) -> int:
    message = server.receive(240)
    assert message["ended"] == child.pid
    child.close()
    return int(message["status"])


def test_a_child_trains_tells_and_ends(server: ForkServer, tmp_path: Path) -> None:
    child = server.start(request(tmp_path, **drawn(tmp_path), training={"epochs": 1, "batch_size": 16}))
    said = events(child)
    assert isinstance(said[-1], Result)
    assert status(server, child) == 0
    assert (tmp_path / "output" / "report.json").is_file()


def test_a_child_explains_what_another_has_trained(server: ForkServer, tmp_path: Path) -> None:
    data = drawn(tmp_path)
    status(server, server.start(request(tmp_path, **data, training={"epochs": 1, "batch_size": 16})))
    (tmp_path / "output").rename(tmp_path / "model")
    values = {**data, "model": str(tmp_path / "model"), "count": 2}
    (tmp_path / "spec.json").write_text(json.dumps(values))
    paths = (tmp_path / "spec.json", tmp_path / "output", tmp_path / "cache")
    child = server.start(Request("explain", *paths, threads=1))
    said = events(child)
    assert status(server, child) == 0
    assert isinstance(said[-1], Result)
    assert said[-1].summary["images"] == 2
    written = [event for event in said if isinstance(event, ArtifactWritten)]
    assert [event.media_type for event in written] == ["image/png", "image/png", "application/json"]
    assert all(Path(event.path).is_file() for event in written)


def test_a_child_tries_the_device(server: ForkServer) -> None:
    assert server.check(120) is None


def test_a_wrong_spec_is_refused_by_the_child(server: ForkServer, tmp_path: Path) -> None:
    child = server.start(request(tmp_path, model="nothing"))
    said = events(child)
    assert isinstance(said[-1], Failure)
    assert "unknown model" in said[-1].message
    assert status(server, child) == 2


def test_a_signal_reaches_the_child_whenever_it_comes(server: ForkServer, tmp_path: Path) -> None:
    data = drawn(tmp_path)
    for delay in (0.0, 0.05, 1.5):
        child = server.start(request(tmp_path, **data, training={"epochs": 1000, "patience": 1000}))
        time.sleep(delay)
        child.signal(signal.SIGTERM)
        assert status(server, child) == 75


def test_a_child_is_a_fork_of_the_process_that_has_imported_torch_and_its_death_is_told(
    server: ForkServer, tmp_path: Path
) -> None:
    child = server.start(request(tmp_path, **drawn(tmp_path), training={"epochs": 1000, "patience": 1000}))
    parent = psutil.Process(child.pid).parent()
    assert parent is not None
    assert "bgpanet.forkserver" in parent.cmdline()
    child.signal(signal.SIGKILL)
    assert status(server, child) == -signal.SIGKILL


def test_children_do_not_outlive_their_server_and_the_next_start_has_a_new_one(tmp_path: Path) -> None:
    made = ForkServer({})
    try:
        child = made.start(request(tmp_path, **drawn(tmp_path), training={"epochs": 1000, "patience": 1000}))
        process, parent = psutil.Process(child.pid), psutil.Process(child.pid).parent()
        assert parent is not None
        parent.kill()
        process.wait(240)
        with pytest.raises(ForkServerGone):
            made.receive(240)
        again = made.start(request(tmp_path, model="nothing"))
        assert isinstance(events(again)[-1], Failure)
        for one in (child, again):
            one.close()
    finally:
        made.close()


def test_a_start_and_an_end_that_arrive_together_are_two_messages(tmp_path: Path) -> None:
    """The channel is not readable for the second one any more; who waits for that waits for ever."""
    made = ForkServer({})
    made.close()
    made.channel, theirs = socket.socketpair()
    with theirs:
        theirs.sendall(b'{"ready": true}\n{"started": 7}\n{"ended": 7, "status": 2}\n')
        child = made.start(request(tmp_path))
        assert child.pid == 7
        before, message, after = made.has_message, made.receive(1), made.has_message
        assert (before, message, after) == (True, {"ended": 7, "status": 2}, False)
        child.close()
    made.channel.close()


def test_progress_comes_while_it_runs(server: ForkServer, tmp_path: Path) -> None:
    child = server.start(request(tmp_path, **drawn(tmp_path), training={"epochs": 1000, "patience": 1000}))
    with os.fdopen(os.dup(child.events), "rb") as pipe:
        seen = [event for _, event in zip(range(200), map(parse_event, pipe), strict=False)]
    assert any(isinstance(event, Progress) and event.step for event in seen)
    child.signal(signal.SIGKILL)
    assert status(server, child) == -signal.SIGKILL
