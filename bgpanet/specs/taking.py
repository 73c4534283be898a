"""Runs that take something in: a data set that is registered, a trained model that comes from elsewhere."""

from typing import Self

from pydantic import Field, model_validator

from bgpanet.specs.base import LockSpec, RunSpec, Spec


class SourceSpec(Spec):
    """Where a service finds the files of a data set: exactly one of folder, s3 and upload."""

    format: str = Field(description="as in `data`")
    folder: str | None = Field(None, description="a folder that the worker sees")
    s3: str | None = Field(None, description="s3://bucket/prefix, of a bucket that the service may read")
    upload: str | None = Field(None, description="id of a complete upload")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(place is not None for place in (self.folder, self.s3, self.upload)) != 1:
            raise ValueError("name exactly one of folder, s3 and upload")
        return self


class RegisterSpec(RunSpec):
    """Check a data set and pack it. `data` may name a folder, or a zip or tar file of it."""

    source: SourceSpec | None = Field(None, description="given by a service only; the command line has `data`")
    others: dict[str, str] = Field(
        default_factory=dict,
        description="fingerprint files of other data sets by name: shared images are told",
    )
    licence: str | None = Field(None, max_length=2000, description="null: what the files say of it")
    citation: str | None = Field(None, max_length=2000, description="null: what the files say of it")
    locked: LockSpec | None = Field(None, description="a part that no training ever sees; null: none")


class ImportSpec(RunSpec):
    """Check a trained model that comes from elsewhere."""

    source: str = Field(min_length=1, description="a zip or a folder; a service's: id of a complete upload")
    name: str = Field("", description="what it was called where it comes from")
    note: str | None = Field(None, max_length=2000)
