"""What a run says while it runs: one JSON object a line.

A run is handed a `Report`, a function that takes events. On the command line it draws a progress bar; under a worker
it writes lines into a pipe. Imports no torch.
"""

import os
import threading
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError


class _Event(BaseModel):
    # Unknown fields are ignored: a newer child may say more than an older worker understands.
    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class Progress(_Event):
    """How far the run is. `fraction` is in [0, 1]; `eta_seconds` is the time left, null while unknown."""

    type: Literal["progress"] = "progress"
    fraction: float = Field(ge=0, le=1)
    message: str = ""
    step: int | None = None
    steps: int | None = None
    epoch: int | None = None
    epochs: int | None = None
    eta_seconds: float | None = None


class Metrics(_Event):
    """Figures at an optimizer step."""

    type: Literal["metrics"] = "metrics"
    step: int
    epoch: int
    values: dict[str, float]


class CheckpointWritten(_Event):
    """A complete checkpoint lies in the folder `path`; `kept`: its weights belong to the result."""

    type: Literal["checkpoint"] = "checkpoint"
    path: str
    step: int
    epoch: int
    kept: bool = False


class Started(_Event):
    """Training starts from the state after `step` (0: the beginning); what was said of later steps no longer holds."""

    type: Literal["started"] = "started"
    step: int


class ArtifactWritten(_Event):
    """A complete file that belongs to the result."""

    type: Literal["artifact"] = "artifact"
    name: str
    path: str
    media_type: str


class Log(_Event):
    """A line for a person."""

    type: Literal["log"] = "log"
    level: Literal["info", "warning", "error"] = "info"
    message: str


class Result(_Event):
    """The run ended well. `summary` holds its main figures, plain JSON."""

    type: Literal["result"] = "result"
    summary: dict[str, Any]


class Told(_Event):
    """One thing that was found in data, or is wrong; see `bgpanet.data.index.Finding`."""

    level: str
    where: str
    what: str
    rows: tuple[str, ...] = ()
    count: int = 0


class Failure(_Event):
    """The run ended badly. `reason` is from the closed list of the service; `findings` are its causes, one by one."""

    type: Literal["failure"] = "failure"
    reason: str
    message: str
    findings: tuple[Told, ...] = ()


Event = Progress | Metrics | CheckpointWritten | Started | ArtifactWritten | Log | Result | Failure
Report = Callable[[Event], None]

_EVENTS: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="type")])


def parse_event(line: bytes | str) -> Event | None:
    """The event of a line; None where the line is none (a newer kind, or text that went astray)."""
    try:
        return _EVENTS.validate_json(line)
    except ValidationError:
        return None


def pipe_report(descriptor: int) -> Report:
    """A report that writes lines into an open file descriptor, whole ones from whatever thread.

    A reader that is gone raises BrokenPipeError.
    """
    lock = threading.Lock()

    def report(event: Event) -> None:
        line = event.model_dump_json().encode() + b"\n"
        with lock:
            while line:
                line = line[os.write(descriptor, line) :]

    return report
