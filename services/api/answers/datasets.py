"""Answers about data sets and what is sent for them."""

from typing import Any, Literal

from pydantic import Field

from services.api.answers.base import OTHER_ID, SHA256, Answer, Id, Progress, Sha256, Time
from services.claims import State

DatasetState = Literal["registering", "ready", "refused", "duplicate", "removed"]


class ClassCount(Answer):
    """How much there is of a class."""

    class_: str = Field(alias="class", examples=["mel"])
    images: int = Field(examples=[1113])
    groups: int = Field(examples=[614])


class Finding(Answer):
    """Something that a check found."""

    level: Literal["refused", "excluded", "warned"] = Field(examples=["warned"])
    where: str = Field(examples=["ISIC_0034320.jpg"])
    what: str = Field(examples=["is byte-identical to ISIC_0024306.jpg"])
    rows: list[str] = Field([], description="ids of images concerned, the first of `count`", examples=[[]])
    count: int = Field(0, examples=[1])


class LockedPart(Answer):
    """The part of a data set that no training sees."""

    share: float = Field(examples=[0.2])
    seed: int = Field(examples=[0])
    digest: Sha256
    images: int = Field(examples=[2003])
    groups: int = Field(examples=[1494])
    class_counts: list[ClassCount]


class ListedDataset(Answer):
    """A data set in a list. What is not known before it has been read is null until then."""

    id: Id
    project: str = Field(description="that it belongs to; ~user: a user's own", examples=["~ada"])
    name: str = Field(examples=["ham10000"])
    version: int | None = Field(examples=[1])
    state: DatasetState = Field(examples=["ready"])
    job: str | None = Field(description="that registers it", examples=[OTHER_ID])
    progress: Progress | None = Field(description="while it is being registered", examples=[None])
    error: str | None = Field(examples=[None])
    format: str = Field(examples=["ham10000"])
    digest: str | None = Field(description="of its content", examples=[SHA256])
    synthetic: bool = Field(description="it was drawn, and shows no person's skin", examples=[False])
    classes: list[str] = Field(examples=[["akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"]])
    images: int | None = Field(examples=[10015])
    groups: int | None = Field(examples=[7470])
    group_unit: str | None = Field(examples=["lesion"])
    class_counts: list[ClassCount]
    columns: list[str] = Field(description="what else is known of images", examples=[["age", "sex", "site"]])
    licence: str | None = Field(examples=["CC BY-NC 4.0"])
    citation: str | None = Field(examples=["Tschandl et al., Scientific Data 5, 2018"])
    locked: LockedPart | None = Field(examples=[None])
    bytes: int = Field(examples=[2_870_000_000])
    findings: list[Finding]
    checks: dict[str, Any] = Field(examples=[{"images": 10015, "missing": 0, "unreadable": 0}])
    created_by: str = Field(examples=["ada"])
    created_at: Time
    ready_at: Time | None
    removed_by: str | None = Field(examples=[None])
    removed_at: Time | None = Field(examples=[None])


class LockedUse(Answer):
    """An evaluation on the locked part."""

    job: Id
    model: str = Field(examples=[OTHER_ID])
    state: State = Field(examples=["succeeded"])
    by: str = Field(examples=["ada"])
    at: Time


class Dataset(ListedDataset):
    """A data set."""

    locked_uses: list[LockedUse] | None = Field(description="null: it has no locked part", examples=[None])


class Upload(Answer):
    """A file that is sent in parts."""

    id: Id
    project: str = Field(description="that it belongs to; ~user: a user's own", examples=["~ada"])
    name: str = Field(examples=["ham10000.zip"])
    size: int = Field(description="bytes", examples=[2_870_000_000])
    sha256: Sha256
    state: Literal["open", "complete"]
    part_size: int = Field(description="bytes of every part but the last", examples=[16_777_216])
    parts: int = Field(examples=[172])
    received: list[int] = Field(description="numbers of the parts that are there", examples=[[1, 2, 3]])
    dataset: str | None = Field(description="registered from it last", examples=[None])
    created_by: str = Field(examples=["ada"])
    created_at: Time
    expires_at: Time


class PartAddress(Answer):
    """Where a part is to be sent by PUT."""

    number: int = Field(examples=[1])
    size: int = Field(description="bytes", examples=[16_777_216])
    address: str | None = Field(description="null: here", examples=[None])
