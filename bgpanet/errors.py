"""Every error that this package raises on purpose.

BGPANetError
├── InvalidInput      what was asked for, or the data that it names, is wrong; carries every problem found
│   └── DataRefused   a data set must not be used; carries everything else that was found, too
├── DataDamaged       an image is not any more what it was when its data set was registered
├── DeviceMissing     the GPU that the run is to have does not answer; another worker's may
├── CheckpointError   a checkpoint is incomplete, damaged, or belongs to another run
├── NonFiniteLoss     the loss became NaN or infinite; the weights were not updated with it
├── NotTheSame        what was written for others gives other answers than the model itself
├── OutOfMemory       the device's memory did not suffice
└── Interrupted       asked to stop; a checkpoint was written, and the same command goes on from it

Each class names the `reason` under which a job that it ends is filed.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    where: the field, file or row, e.g. `spec.training.epochs` or `HAM10000_metadata.csv:17`.
    what: what is wrong and what to do about it, one sentence.
    """

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" if self.where else self.what


class BGPANetError(Exception):
    """Base of the tree."""

    reason: ClassVar[str] = "internal"


class InvalidInput(BGPANetError):
    """What was asked for, or the data that it names, is wrong. All problems are told together."""

    reason = "invalid_input"

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(str(problem) for problem in self.problems))

    @classmethod
    def one(cls, where: str, what: str) -> "InvalidInput":
        """An error with a single problem."""
        return cls([Problem(where, what)])


class DataRefused(InvalidInput):
    """A data set must not be used. `remarks` is all that was found, each with its level, `refused` among them."""

    def __init__(self, remarks: Iterable[tuple[str, Problem]]) -> None:
        self.remarks = tuple(remarks)
        super().__init__(problem for level, problem in self.remarks if level == "refused")


class DataDamaged(BGPANetError):
    """An image is not any more what it was when its data set was registered, or can't be read."""

    reason = "storage"


class DeviceMissing(BGPANetError):
    """The GPU that the run is to have does not answer."""

    reason = "worker_lost"


class CheckpointError(BGPANetError):
    """A checkpoint is incomplete, damaged, or belongs to another run."""

    reason = "storage"


class NonFiniteLoss(BGPANetError):
    """The loss became NaN or infinite; the weights were not updated with it."""

    reason = "non_finite_loss"


class NotTheSame(BGPANetError):
    """What was written for others gives other answers than the model itself."""


class OutOfMemory(BGPANetError):
    """The device's memory did not suffice."""

    reason = "out_of_memory"


class Interrupted(BGPANetError):
    """Asked to stop; a checkpoint was written, and the same command goes on from it."""
