"""The base of all specs, and what every run has: its data, and what its worker must offer."""

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

LABEL = re.compile(r"[a-z0-9][a-z0-9_.:=/-]{0,99}")
"""What a worker may be labelled with, such as `room=2`."""


class Spec(BaseModel):
    """Base of all specs: immutable, no unknown fields, no NaN or infinity, no silent conversions."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)


def _label(value: str) -> str:
    if not LABEL.fullmatch(value):
        raise ValueError(f"{value!r} must be 1 to 100 lower-case letters, digits and _.:=/-, a letter or digit first")
    return value


class LockSpec(Spec):
    """A part of a data set that no training ever sees, cut by whole groups and stratified by class."""

    share: float = Field(ge=0.05, le=0.5, description="of the data set, about")
    seed: int = Field(0, ge=0)


class DataSpec(Spec):
    """Where the images lie. A service fills it in; on the command line it is part of the file."""

    format: str = Field(description="as `bgpanet dataset formats` lists them, or packed (a registered data set)")
    path: str = Field(description="the data set's folder")
    locked: LockSpec | None = Field(None, description="the part that only `evaluate` with `part: locked` sees")
    holds: Literal["open", "locked"] = Field("open", description="a service hands out the parts of a data set apart")


class ResourcesSpec(Spec):
    """What a worker must offer."""

    device: Literal["any", "cpu", "gpu"] = "any"
    gpus: int = Field(1, ge=1, le=64, description="GPUs of one host; more than one runs under torchrun")
    memory_gb: float | None = Field(None, gt=0, description="of the device, at least, 10^9 bytes; for a service")
    labels: tuple[Annotated[str, AfterValidator(_label)], ...] = Field(
        (), max_length=20, description="that the worker has, as `bgpanet workers` shows them; for a service"
    )

    @model_validator(mode="after")
    def _on_gpus(self) -> Self:
        if self.gpus > 1 and self.device == "cpu":
            raise ValueError("gpus is for GPUs; device is cpu")
        return self

    @property
    def resource_class(self) -> str:
        """Which workers of a service can have the run: `any`, `cpu`, `gpu`, or `gpu-4` for four GPUs of one host."""
        return self.device if self.gpus == 1 else f"gpu-{self.gpus}"


class RunSpec(Spec):
    """What every run has."""

    data: DataSpec | None = Field(None, description="given on the command line only; a service knows its data sets")
    resources: ResourcesSpec = ResourcesSpec()


Precision = Literal["auto", "fp32", "bf16", "fp16"]
