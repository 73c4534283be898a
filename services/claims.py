"""What goes into the state machine of `services.jobs` and what comes out of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

State = Literal["queued", "running", "paused", "succeeded", "failed", "cancelled"]
Reason = Literal[
    "invalid_input",
    "out_of_memory",
    "non_finite_loss",
    "stalled",
    "time_limit",
    "worker_lost",
    "storage",
    "internal",
]
"""Why a job failed."""
MAX_ATTEMPTS = 3


@dataclass(frozen=True)
class NewJob:
    """What `submit` inserts. `spec` is validated and complete; children share their parent's data set and owner.

    weights: the file of ImageNet weights without which a worker could not start it; None: it needs none.
    labels, memory_gb: what its worker has to have; time_limit: seconds of work of each run; after: jobs that have to
    succeed first; on_failure: `fail_fast` cancels the other children when one fails, `finish_rest` does not.
    """

    kind: str
    name: str
    spec: Mapping[str, Any]
    dataset_id: str | None
    created_by: str
    priority: int = 0
    resource_class: str = "any"
    weights: str | None = None
    images_at_once: int | None = None  # that it is held to from the start
    idempotency_key: str | None = None
    children: Sequence["NewJob"] = ()
    registers: str | None = None  # the name of the data set `dataset_id`, whose row is made with the job
    imports: str | None = None  # the name of the model whose version `model_version_id` is made with the job
    model_version_id: str | None = None  # of the registered model that it uses
    labels: Sequence[str] = ()
    memory_gb: float | None = None
    time_limit: int | None = None
    after: Sequence[str] = ()
    on_failure: str = "finish_rest"
    max_attempts: int = MAX_ATTEMPTS
    cloned_from: str | None = None
    project: str | None = None  # None: the owner's own


@dataclass(frozen=True)
class Limits:
    """How many jobs may wait, children not counted: of one user, and of all. None: as many as come."""

    waiting_of_user: int | None = None
    waiting: int | None = None


NO_LIMITS = Limits()


@dataclass(frozen=True)
class StoredFile:
    """A file in the artifact store."""

    key: str
    sha256: str
    size: int

    def as_json(self) -> dict[str, Any]:
        """The form in which tables keep it."""
        return {"key": self.key, "sha256": self.sha256, "size": self.size}


@dataclass(frozen=True)
class NewArtifact:
    """A file of a finished job's result, already stored."""

    name: str
    media_type: str
    file: StoredFile


@dataclass(frozen=True)
class Lease:
    """A worker's right to write for one attempt of a job."""

    job_id: str
    attempt: int


@dataclass(frozen=True)
class Claim:
    """What a worker needs to know of the job that it got.

    images_at_once: held to so many; None: as the spec says. dataset_id: None: it needs none. checkpoints: by step, the
    newest first; a damaged one has others behind it. seconds_left: of its time limit; None: it has none.
    model_version_id: of the registered model that it uses; None: its spec names a training's job, or none.
    traceparent: where its trace goes on; None: nowhere.
    """

    lease: Lease
    kind: str
    name: str
    spec: dict[str, Any]
    images_at_once: int | None
    dataset_id: str | None
    checkpoints: dict[int, dict[str, StoredFile]]
    children: tuple[str, ...]
    seconds_left: float | None = None
    model_version_id: str | None = None
    traceparent: str | None = None

    @property
    def checkpoint(self) -> dict[str, StoredFile] | None:
        """The newest one."""
        return next(iter(self.checkpoints.values()), None)


@dataclass(frozen=True)
class Orders:
    """What a worker is told whenever it writes."""

    cancel: bool
    pause: bool


@dataclass
class Batch:
    """What a child said since the last write."""

    progress: dict[str, Any] | None = None
    metrics: list[dict[str, Any]] = field(default_factory=list)  # step, epoch, name, value
    logs: list[tuple[str, str]] = field(default_factory=list)  # level, message
