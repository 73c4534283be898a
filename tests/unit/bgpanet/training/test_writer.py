from collections.abc import Callable
from pathlib import Path
from threading import Event as Gate

import pytest
import torch

from bgpanet.errors import CheckpointError
from bgpanet.events import CheckpointWritten, Event
from bgpanet.training.checkpoints import Snapshot, list_checkpoints, load_checkpoint
from bgpanet.training.writer import CheckpointWriter


def silent(event: Event) -> None:
    """Says nothing."""


def snapshot(value: float) -> Snapshot:
    return Snapshot({"a": torch.full((2, 3), value)}, {"step": torch.tensor(value)}, {}, {"value": value})


def test_what_is_written_is_what_was_there_when_it_was_asked_for(tmp_path: Path) -> None:
    gate = Gate()
    held = snapshot(1.0)

    def hold(event: Event) -> None:
        gate.wait()

    with CheckpointWriter(tmp_path, hold) as writer:
        writer.write(1, 0, snapshot(0.0))
        assert writer.is_busy()
        gate.set()
        writer.write(2, 0, held)
        held.model["a"].fill_(7.0)
        held.optimizer["step"].fill_(7.0)
    kept = [load_checkpoint(path) for path in list_checkpoints(tmp_path)]
    assert [found.model["a"].mean().item() for found in kept] == [0.0, 1.0]
    assert [found.optimizer["step"].item() for found in kept] == [0.0, 1.0]


def test_a_checkpoint_is_whole_when_it_is_told_of_and_the_end_waits_for_it(tmp_path: Path) -> None:
    told: list[float] = []

    def report(event: Event) -> None:
        assert isinstance(event, CheckpointWritten)
        told.append(load_checkpoint(Path(event.path)).state["value"])

    with CheckpointWriter(tmp_path, report) as writer:
        for step in (1, 2, 3):
            writer.write(step, 0, snapshot(step))
    assert told == [1, 2, 3]
    assert not writer.is_busy()


def test_tensors_may_become_more_and_fewer(tmp_path: Path) -> None:
    """An optimizer has no state before its first step, and less while a part of the network is frozen."""
    sets: list[dict[str, torch.Tensor]] = [{}, {"a": torch.ones(1), "b": torch.ones(2)}, {"b": torch.zeros(2)}]
    with CheckpointWriter(tmp_path, silent) as writer:
        for step, tensors in enumerate(sets):
            writer.write(step, 0, Snapshot({"w": torch.ones(1)}, tensors, {}, {}))
    before, last = (load_checkpoint(path).optimizer for path in list_checkpoints(tmp_path))
    assert set(before) == {"a", "b"}
    assert last.keys() == {"b"}
    assert torch.equal(last["b"], torch.zeros(2))


def ask_until_idle(writer: CheckpointWriter) -> None:
    while writer.is_busy():
        pass


@pytest.mark.parametrize(
    "ask", [ask_until_idle, CheckpointWriter.wait, lambda writer: writer.write(2, 0, snapshot(2.0))]
)
def test_a_write_that_failed_is_told_to_whoever_asks_next(
    ask: Callable[[CheckpointWriter], None], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no folder")
    with CheckpointWriter(tmp_path / "file", silent) as writer:
        writer.write(1, 0, snapshot(1.0))
        with pytest.raises(CheckpointError, match="could not be written"):
            ask(writer)
