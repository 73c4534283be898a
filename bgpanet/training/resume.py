"""A run's checkpoint: what goes in, and how a run goes on from it."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from torch import Tensor

from bgpanet.errors import CheckpointError
from bgpanet.events import Log, Report, Started
from bgpanet.training.checkpoints import Snapshot, list_checkpoints, newest_valid
from bgpanet.training.optimizer import load_state_tensors, state_tensors
from bgpanet.training.task import State, Task
from bgpanet.training.writer import CheckpointWriter

LOSS, AVERAGE = "loss.", "average."
"""Beginnings of the names of what stands beside the optimizer's state in its file."""


def write_checkpoint(
    task: Task, writer: CheckpointWriter, state: State, best: Mapping[str, Tensor], kept: bool = False
) -> None:
    """Has everything saved that the rest of the run depends on; the leading process does it for all. `kept`: it stays
    when newer ones come.

    Raises:
        CheckpointError: the one before could not be written.
    """
    if not task.processes.leads:
        return
    average = {} if task.average is None else task.average.tensors
    snapshot = Snapshot(
        model=task.model.state_dict(),
        optimizer={
            **state_tensors(task.optimizer, task.model),
            **{f"{LOSS}{name}": value for name, value in task.loss.state_dict().items()},
            **{f"{AVERAGE}{name}": value for name, value in average.items()},
        },
        best=best,
        state={
            "fingerprint": task.fingerprint,
            "compute": task.compute.describe(),
            "scaler": task.scaler.state_dict(),
            "position": asdict(state),
        },
    )
    writer.write(state.step, state.epoch, snapshot, kept)


def restore(task: Task, folder: Path, report: Report) -> tuple[State, dict[str, Tensor]]:
    """Where the run stands by the newest whole checkpoint, and the weights kept so far; the beginning without one.

    Raises:
        CheckpointError: it belongs to another run or a newer version, or not all processes found the same.
    """
    found = newest_valid(folder)
    device = str(task.compute.describe()["device"])
    if not task.processes.are_alike(-1 if found is None else int(found[1].state["position"]["step"])):
        raise CheckpointError(f"the processes do not see the same checkpoints in {folder}; it must be one folder")
    if found is None:
        if list_checkpoints(folder):
            report(Log(level="warning", message=f"no checkpoint in {folder} is whole; training begins anew"))
        report(Started(step=0))
        at_once = [[0, task.training.images_at_once]]
        return State(images_at_once=at_once, processes=[task.processes.count], devices=[device]), {}
    path, snapshot, wrong = found
    for problem in wrong:
        report(Log(level="warning", message=f"an older checkpoint is used: {problem}"))
    if snapshot.state["fingerprint"] != task.fingerprint:
        raise CheckpointError(f"{path} belongs to another run (other spec or data); take an empty output folder")
    task.model.load_state_dict(dict(snapshot.model))
    task.loss.load_state_dict(_part(snapshot.optimizer, LOSS))
    if task.average is not None:
        task.average.load(_part(snapshot.optimizer, AVERAGE))
    if task.scaler.is_enabled():
        task.scaler.load_state_dict(snapshot.state["scaler"])
    own = {name: value for name, value in snapshot.optimizer.items() if not name.startswith((LOSS, AVERAGE))}
    load_state_tensors(task.optimizer, task.model, own)
    try:
        state = State(**snapshot.state["position"])
    except TypeError as error:  # filed so that a job is tried again, maybe by the worker that wrote it
        raise CheckpointError(f"{path} was written by a newer version, which may go on from it: {error}") from None
    report(Started(step=state.step))
    report(Log(message=f"going on after step {state.step}, epoch {state.epoch}"))
    if not state.images_at_once or state.images_at_once[-1][1] != task.training.images_at_once:
        state.images_at_once.append([state.step, task.training.images_at_once])
        told = f"{task.training.images_at_once} images pass the device at once from here on"
        report(Log(level="warning", message=f"{told}; the batch stays, rounding and what layers draw are others"))
    if state.processes[-1] != task.processes.count:
        state.processes.append(task.processes.count)
        told = " then ".join(map(str, state.processes))
        report(Log(level="warning", message=f"{told} processes: the bits are not those of one number throughout"))
    # A checkpoint of an older version names the last one alone.
    state.devices = state.devices or [str(snapshot.state["compute"]["device"])]
    if state.devices[-1] != device:
        state.devices.append(device)
        told = " then ".join(state.devices)
        report(Log(level="warning", message=f"{told}: the bits are not those of one kind of device throughout"))
    return state, dict(snapshot.best)


def _part(tensors: Mapping[str, Tensor], beginning: str) -> dict[str, Tensor]:
    return {name.removeprefix(beginning): value for name, value in tensors.items() if name.startswith(beginning)}
