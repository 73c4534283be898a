"""What all answers are built of: ids, times, digests, pages of a list, and the document of a problem."""

from datetime import datetime
from typing import Annotated, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from bgpanet.specs import Kind

AnyKind = Literal[Kind, "register", "export", "import"]
ID = "019b2f6c-5a1e-7c3d-9f00-4b6a1e2d3c4f"
OTHER_ID = "019b2f6c-0b52-7d11-8a3e-90d1c5f7e6a2"
SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
Id = Annotated[str, Field(description="UUIDv7", examples=[ID])]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$", examples=[SHA256])]
Time = Annotated[datetime, Field(description="RFC 3339, UTC", examples=["2026-03-01T09:30:00.000Z"])]


class Answer(BaseModel):
    """Base of all answers. Tests refuse fields that are not told here; clients must not, later versions add some."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, json_schema_extra=lambda schema: schema.pop("additionalProperties", 0)
    )


ItemT = TypeVar("ItemT")


class Page(Answer, Generic[ItemT]):
    """A part of a list."""

    items: list[ItemT]
    next_cursor: str | None = Field(description="`cursor` of the request for what follows; null at the end")


class WrongField(Answer):
    """One thing that is wrong with a request."""

    field: str = Field(description="where; empty: the request as a whole", examples=["spec.training.epochs"])
    detail: str = Field(description="what, and what to do", examples=["Input should be greater than or equal to 1"])


class Problem(Answer):
    """A problem document (RFC 9457)."""

    type: Literal["about:blank"]
    title: str = Field(examples=["The request is wrong"])
    status: int = Field(examples=[422])
    request_id: str = Field(
        examples=["0193a1f2b7c04e5d"], description="names this request in the server's log; also in `X-Request-ID`"
    )
    detail: str | None = Field(None, examples=["1 problem(s)"])
    errors: list[WrongField] | None = Field(None, description="every wrong field")


class FileFacts(Answer):
    """A file's content."""

    sha256: Sha256
    size: int = Field(description="bytes", examples=[5_242_880])


class Progress(Answer):
    """How far a job is."""

    fraction: float = Field(description="from 0 to 1", examples=[0.41])
    step: int | None = Field(examples=[740])
    steps: int | None = Field(examples=[1800])
    epoch: int | None = Field(examples=[75])
    epochs: int | None = Field(examples=[180])
    eta_seconds: float | None = Field(description="time left; null: not known", examples=[5400.0])
    message: str = Field(examples=["loss 0.412"])
