"""Checkpoints written beside the training loop, which stands still only while its tensors are copied."""

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from bgpanet.events import CheckpointWritten, Report
from bgpanet.training.checkpoints import Snapshot, save_checkpoint


class CheckpointWriter:
    """Writes one checkpoint at a time into `folder` and reports it, from a thread of its own, when it is complete.

    What goes wrong there is raised by the next call of any method. The end of a `with` block waits for the thread.
    """

    def __init__(self, folder: Path, report: Report) -> None:
        self.folder, self.report = folder, report
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._writing: Future[None] | None = None
        self._model: dict[str, Tensor] = {}
        self._optimizer: dict[str, Tensor] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._thread.shutdown()

    def is_busy(self) -> bool:
        """Whether a checkpoint is being written. Raises as `wait` does."""
        if self._writing is not None and not self._writing.done():
            return True
        self.wait()
        return False

    def write(self, step: int, epoch: int, snapshot: Snapshot, kept: bool = False) -> None:
        """Has it written as it is now. Waits for the one before. `best` is not copied: nobody may write into it.
        `kept`: it stays when newer ones come.

        Raises:
            CheckpointError: the one before could not be written.
        """
        self.wait()
        copy = Snapshot(
            _copied(snapshot.model, self._model),
            _copied(snapshot.optimizer, self._optimizer),
            snapshot.best,
            snapshot.state,
        )
        self._writing = self._thread.submit(self._write, step, epoch, copy, kept)

    def wait(self) -> None:
        """Returns when nothing is being written.

        Raises:
            CheckpointError: what was being written could not be.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _write(self, step: int, epoch: int, snapshot: Snapshot, kept: bool) -> None:
        path = save_checkpoint(self.folder, step, epoch, snapshot, kept)
        self.report(CheckpointWritten(path=str(path), step=step, epoch=epoch, kept=kept))


def _copied(tensors: Mapping[str, Tensor], buffers: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies in main memory, in `buffers`, which are made where they are not there yet: new pages cost more."""
    for name, tensor in tensors.items():
        if name not in buffers:
            buffers[name] = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
        buffers[name].copy_(tensor.detach())
    return {name: buffers[name] for name in tensors}
