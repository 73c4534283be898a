"""Answers about jobs."""

from typing import Any, Literal

from pydantic import Field

from bgpanet.specs import Kind
from services.api.answers.base import OTHER_ID, SHA256, Answer, AnyKind, FileFacts, Id, Progress, Sha256, Time
from services.claims import Reason, State


class Children(Answer):
    """How many children are in each state."""

    queued: int = Field(examples=[2])
    running: int = Field(examples=[2])
    paused: int = Field(examples=[0])
    succeeded: int = Field(examples=[1])
    failed: int = Field(examples=[0])
    cancelled: int = Field(examples=[0])


class ListedJob(Answer):
    """A job in a list."""

    id: Id
    kind: AnyKind
    name: str = Field(examples=["train bgpanet on ham10000"])
    state: State = Field(examples=["running"])
    reason: Reason | None = Field(description="why it failed", examples=[None])
    error: str | None = Field(description="the same in words", examples=[None])
    project: str = Field(description="that it belongs to; ~user: a user's own", examples=["~ada"])
    dataset: str | None = Field(description="the data set's name; null: it needs none", examples=["ham10000"])
    spec: dict[str, Any] = Field(
        description="as it runs, defaults filled in", examples=[{"model": {"name": "bgpanet"}, "training": {}}]
    )
    priority: int = Field(examples=[0])
    attempt: int = Field(description="number of the latest one; 0 before the first", examples=[1])
    max_attempts: int = Field(
        description="that may be lost in a row without a new checkpoint before it fails", examples=[3]
    )
    time_limit: int | None = Field(description="seconds of work; null: none", examples=[None])
    memory_gb: float | None = Field(description="of the device, at least, 10^9 bytes", examples=[None])
    on_failure: Literal["finish_rest", "fail_fast"] | None = Field(
        description="what becomes of the other children when one fails; null: it has none", examples=[None]
    )
    superseded_by: str | None = Field(description="the job that tries it again", examples=[None])
    cloned_from: str | None = Field(examples=[None])
    progress: Progress
    summary: dict[str, Any] = Field(description="figures of a job that succeeded", examples=[{}])
    parent: str | None = Field(examples=[None])
    position: int | None = Field(description="among its parent's children, from 0", examples=[None])
    children: Children | None = Field(examples=[None])
    worker: str | None = Field(description="that has it now", examples=["gpu-1/0"])
    created_by: str = Field(examples=["ada"])
    created_at: Time
    started_at: Time | None
    finished_at: Time | None = Field(examples=[None])
    dataset_id: str | None = Field(examples=[OTHER_ID])
    dataset_version: int | None = Field(description="null until the data set is ready", examples=[1])
    model_version_id: str | None = Field(description="of the registered model that it uses", examples=[None])


class SubmittedJob(ListedJob):
    """A job that was made or made before."""

    after: list[str] = Field(description="ids of jobs that have to succeed first", examples=[[]])
    labels: list[str] = Field(description="that its worker must have", examples=[[]])
    retry_of: str | None = Field(description="the job that it tries again", examples=[None])


class Queue(Answer):
    """What a waiting job waits for."""

    position: int | None = Field(description="from 1; null: it is not in the queue yet", examples=[3])
    starts_in_seconds: float | None = Field(description="about; null: not known", examples=[840.0])
    waits_for: list[str] = Field(examples=[["data set ham10000 is being registered (40 % done)"]])


class Job(SubmittedJob):
    """A job."""

    queue: Queue | None = Field(description="null: it does not wait", examples=[None])


class CheckedJob(Answer):
    """A request that would be accepted; nothing of it was stored."""

    validate_only: Literal[True]
    kind: Kind
    name: str = Field(examples=["train bgpanet on ham10000"])
    dataset: str = Field(examples=["ham10000"])
    dataset_id: Id
    dataset_version: int | None = Field(examples=[1])
    project: str = Field(description="that it belongs to; ~user: a user's own", examples=["~ada"])
    spec: dict[str, Any] = Field(
        description="as it would run, defaults filled in",
        examples=[{"model": {"name": "bgpanet"}, "training": {"epochs": 180}}],
    )
    priority: int = Field(examples=[0])
    after: list[str] = Field(examples=[[]])
    time_limit: int | None = Field(examples=[None])
    on_failure: Literal["finish_rest", "fail_fast"]
    children: int = Field(description="jobs of which it would consist; 0: it is one run", examples=[0])


class Point(Answer):
    """A figure at a step."""

    step: int = Field(examples=[300])
    epoch: int = Field(examples=[30])
    value: float = Field(examples=[0.412])


class Series(Answer):
    """One figure in the order of steps."""

    name: str = Field(examples=["validation.loss"])
    points: list[Point]


class LogLine(Answer):
    """A line that a job's run printed."""

    id: int = Field(examples=[17])
    attempt: int = Field(examples=[1])
    at: Time
    level: str = Field(examples=["info"])
    message: str = Field(examples=["epoch 30: validation loss 0.412"])


class Event(Answer):
    """Something that happened to a job."""

    id: int = Field(examples=[4])
    at: Time
    attempt: int = Field(examples=[1])
    state: State = Field(examples=["running"])
    detail: str = Field(examples=["claimed by gpu-1/0"])


class Attempt(Answer):
    """One try of a job by one worker."""

    number: int = Field(examples=[1])
    worker: str = Field(examples=["gpu-1/0"])
    started_at: Time
    ended_at: Time | None
    outcome: str | None = Field(examples=["succeeded"])
    resumed_from_step: int | None = Field(examples=[None])
    images_at_once: int | None = Field(description="on the device; null: as the spec says", examples=[None])
    version: str | None = Field(description="the worker's", examples=["0.1.0"])


class Checkpoint(Answer):
    """A complete checkpoint."""

    step: int = Field(examples=[300])
    epoch: int = Field(examples=[30])
    attempt: int = Field(examples=[1])
    created_at: Time
    files: dict[str, FileFacts] = Field(
        description="by name", examples=[{"model.safetensors": {"sha256": SHA256, "size": 5_242_880}}]
    )


class Artifact(Answer):
    """A file of a job's result."""

    name: str = Field(examples=["predictions.csv"])
    media_type: str = Field(examples=["text/csv"])
    size: int = Field(description="bytes", examples=[81_920])
    sha256: Sha256
    created_at: Time
