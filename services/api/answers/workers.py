"""Answers about workers."""

from typing import Any, Literal

from pydantic import Field

from services.api.answers.base import Answer, Time


class Weights(Answer):
    """Which ImageNet weights a worker can have."""

    folder: str = Field("", examples=["/var/lib/bgpanet/torch/checkpoints"])
    files: list[str] = Field([], examples=[["swin_b-68c6b09e.pth"]])
    reachable: bool | None = Field(None, description="whether it can download them; null: not known", examples=[True])


class Use(Answer):
    """Means over a time."""

    busy: float = Field(description="the share of it with a job, from 0 to 1", examples=[0.85])
    gpu_percent: float | None = Field(description="null: not told", examples=[91.5])
    cpu_percent: float | None = Field(description="of its host; null: not told", examples=[34.0])


class WorkerUse(Answer):
    """How busy a worker slot was."""

    name: str = Field(examples=["gpu-1/0"])
    use: list[Use | None] = Field(description="over equal times, the last of which ends now; null: it told nothing")


class Worker(Answer):
    """A worker slot."""

    name: str = Field(examples=["gpu-1/0"])
    worker: str = Field(description="the process that it belongs to, with its other slots", examples=["gpu-1"])
    host: str = Field(examples=["gpu-1"])
    pid: int = Field(examples=[4711])
    version: str = Field(examples=["0.1.0"])
    device: str = Field(examples=["NVIDIA H100 80GB HBM3"])
    resource_classes: list[str] = Field(examples=[["any", "gpu"]])
    labels: list[str] = Field(examples=[["room=2"]])
    memory_gb: float | None = Field(description="of its device, 10^9 bytes", examples=[85.5])
    state: Literal["idle", "busy", "checking", "unfit", "draining", "lost"]
    why: str | None = Field(description="it takes no jobs", examples=[None])
    job: str | None = Field(examples=[None])
    figures: dict[str, Any] = Field(description="of host and device", examples=[{}])
    weights: Weights
    started_at: Time
    seen_at: Time
