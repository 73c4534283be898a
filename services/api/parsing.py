"""Requests in: JSON bodies and query strings, checked against typed models before anything is done."""

import base64
import re
from datetime import datetime
from typing import Annotated, Any, Literal, Self, TypeVar, get_origin

from flask import request
from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from bgpanet import plain_json
from bgpanet.errors import InvalidInput
from bgpanet.specs import Kind, LockSpec
from bgpanet.validation import problems_of
from services.api.answers import ID, AnyKind, DatasetState
from services.changes import Topic
from services.claims import State
from services.fleet_use import KEPT_HOURS
from services.tokens import Role, Scope
from services.webhooks import DeliveryState

MOST_WAIT = 60  # seconds that an answer is held back on request
IDEMPOTENCY_KEY = "^[!-~]([ -~]{0,198}[!-~])?$"
WORDS = "only those with all of these words in their name, in any case"
ONLY_CHECK = "only check: answers 200 with the spec as it would run, and stores nothing"


class Body(BaseModel):
    """Base of all bodies: unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)


PROJECT: Any = Field(None, min_length=1, max_length=201, description="that it belongs to; null: one's own")


class JobBody(Body):
    """A job to submit."""

    kind: Kind
    dataset: str = Field(
        min_length=1, max_length=200, description="name or id of a registered data set", examples=["ham10000"]
    )
    project: str | None = PROJECT
    name: str | None = Field(None, min_length=1, max_length=200, description="null: named for what it does")
    priority: int = Field(0, ge=-100, le=100, description="the highest goes first")
    spec: dict[str, Any] = Field(default_factory=dict)
    after: list[str] = Field(default_factory=list, max_length=100, description="ids of jobs that have to succeed first")
    time_limit: int | None = Field(None, ge=1, lt=2**31, description="seconds of work of each run; null: none")
    on_failure: Literal["finish_rest", "fail_fast"] = Field(
        "finish_rest", description="of a child: the others go on, or are cancelled"
    )
    validate_only: bool = Field(False, description=ONLY_CHECK)


class CloneBody(Body):
    """What a clone does otherwise; what is left out stays. `spec` holds the fields that change."""

    dataset: str | None = Field(None, min_length=1, max_length=200)
    project: str | None = Field(None, min_length=1, max_length=201)
    name: str | None = Field(None, min_length=1, max_length=200)
    priority: int | None = Field(None, ge=-100, le=100)
    spec: dict[str, Any] = Field(default_factory=dict, examples=[{"training": {"seed": 1}}])
    time_limit: int | None = Field(None, ge=1, lt=2**31)
    on_failure: Literal["finish_rest", "fail_fast"] | None = None
    validate_only: bool = Field(False, description=ONLY_CHECK)

    @model_validator(mode="after")
    def _no_nulls(self) -> Self:
        never_null = self.model_fields_set - {"time_limit"}
        if nulls := sorted(name for name in never_null if getattr(self, name) is None):
            raise ValueError(f"{', '.join(nulls)}: leave out what is to stay as it is")
        return self


class JobPatch(Body):
    """What can be changed of a job that has not ended."""

    priority: int = Field(ge=-100, le=100, examples=[5])


class SourceBody(Body):
    """Where the files of a data set are."""

    path: str | None = Field(None, min_length=1, max_length=4096, description="a folder that workers see; admins only")
    s3: str | None = Field(None, min_length=1, max_length=1024, description="s3://bucket/prefix; admins only")
    upload: str | None = Field(None, min_length=1, max_length=36, description="id of a complete upload of one's own")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if len(self.model_fields_set) != 1:
            raise ValueError(f"name exactly one of {', '.join(type(self).model_fields)}")
        return self


class DatasetBody(Body):
    """A data set to register. `path` alone stands for `source: {path}`."""

    name: str = Field(min_length=1, max_length=100, examples=["ham10000"])
    format: str = Field(
        min_length=1, max_length=40, description="as `bgpanet dataset formats` lists them", examples=["ham10000"]
    )
    project: str | None = PROJECT
    source: SourceBody | None = Field(None, examples=[{"path": "/data/HAM10000"}])
    path: str | None = Field(None, min_length=1, max_length=4096)
    licence: str | None = Field(None, min_length=1, max_length=2000)
    citation: str | None = Field(None, min_length=1, max_length=2000)
    locked: LockSpec | None = Field(None, description="a part that no training ever sees: share, seed")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.source is None) == (self.path is None):
            raise ValueError("name either source or path")
        return self

    @property
    def place(self) -> SourceBody:
        """The source, whichever way it was named."""
        return self.source or SourceBody(path=self.path)


class UploadBody(Body):
    """A file that is to be sent in parts."""

    name: str = Field(min_length=1, max_length=200, examples=["ham10000.zip"])
    project: str | None = PROJECT
    size: int = Field(ge=1, lt=2**63, description="bytes", examples=[4])
    sha256: str = Field(
        pattern="^[0-9a-f]{64}$",
        description="of the whole, hex",
        examples=["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"],
    )


class ModelBody(Body):
    """What is to be kept under a name: the model of a finished job, or one that was uploaded."""

    name: str = Field(min_length=1, max_length=100, examples=["lesions"])
    job: str | None = Field(
        None,
        min_length=1,
        max_length=36,
        description="id of a training or cross-validation that succeeded",
        examples=[ID],
    )
    upload: str | None = Field(
        None, min_length=1, max_length=36, description="id of a complete upload: a zip with safetensors and model.json"
    )
    alias: str | None = Field(
        None, min_length=1, max_length=50, description="is to stand for it from now on", examples=["champion"]
    )
    note: str | None = Field(None, min_length=1, max_length=2000)
    project: str | None = Field(None, min_length=1, max_length=201, description="null: one's own")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.job is None) == (self.upload is None):
            raise ValueError("name either job or upload")
        if self.upload is not None and self.alias is not None:
            raise ValueError("alias: give it once the upload was checked and has a version")
        return self


class ExportBody(Body):
    """How a model is to be written."""

    format: Literal["onnx"] = Field(examples=["onnx"])
    bound: float = Field(1e-4, gt=0, le=1e-2, description="most by which a probability may differ from the net's own")


class AliasBody(Body):
    """What an alias is to stand for."""

    version: int = Field(ge=1, lt=2**31, examples=[2])
    expected: int | None = Field(
        None, ge=0, lt=2**31, description="the version for which it must have stood until now; 0: none", examples=[1]
    )


def _time(value: Any) -> Any:
    if not isinstance(value, str):
        raise ValueError("must be a time as RFC 3339 has it, e.g. 2026-03-01T09:30:00Z")
    return datetime.fromisoformat(value)


Moment = Annotated[AwareDatetime, BeforeValidator(_time)]


class TokenBody(Body):
    """A token to make."""

    name: str = Field(min_length=1, max_length=200, examples=["notebook"])
    user: str | None = Field(
        None, min_length=1, max_length=200, description="null: one's own; others' for admins", examples=["ada"]
    )
    role: Role | None = Field(None, description="null: one's own, but for an admin researcher", examples=["researcher"])
    scopes: list[Scope] | None = Field(
        None, min_length=1, description="null: those of the token that asks", examples=[["read", "submit"]]
    )
    expires_at: Moment | None = Field(None, description="null: it holds until it is revoked")


class ProjectBody(Body):
    """A project to make."""

    id: str = Field(
        min_length=2, max_length=63, pattern="^[a-z0-9][a-z0-9-]+$", description="how it is named", examples=["derma"]
    )
    title: str | None = Field(None, min_length=1, max_length=200, examples=["Dermoscopy study"])


class MemberBody(Body):
    """What a member of a project may do in it."""

    role: Role = Field(examples=["researcher"])


class WebhookBody(Body):
    """A webhook to make."""

    url: str = Field(min_length=1, max_length=2000, examples=["https://lab.example.org/hooks/bgpanet"])
    states: list[Literal["succeeded", "failed", "cancelled"]] = Field(
        default=["succeeded", "failed", "cancelled"],
        min_length=1,
        max_length=3,
        description="the ends to hear of",
    )
    children: bool = Field(False, description="also of jobs that have a parent, such as folds")
    everyone: bool = Field(False, description="of the jobs of all users; admins only")


class WebhookPatch(Body):
    """What a webhook is to be; what is left out stays. Its address, for which its secret is, can't be changed."""

    active: bool | None = Field(None, description="false: it is told nothing until it is on again", examples=[False])
    states: list[Literal["succeeded", "failed", "cancelled"]] | None = Field(
        None, min_length=1, max_length=3, description="the ends to hear of"
    )
    children: bool | None = Field(None, description="also of jobs that have a parent, such as folds")
    everyone: bool | None = Field(None, description="of the jobs of all users; admins only")

    @field_validator("*", mode="before")
    @classmethod
    def _no_null(cls, value: Any) -> Any:
        if value is None:
            raise ValueError("leave it out where it is to stay as it is")
        return value

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError(f"name at least one of {', '.join(type(self).model_fields)}")
        return self


class Query(BaseModel):
    """Base of all query strings. Text becomes what the field is."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class PageQuery(Query):
    cursor: str | None = Field(None, max_length=36, description="the `next_cursor` of the page before")
    limit: int = Field(50, ge=1, le=500, description="most items of a page")


class JobsQuery(PageQuery):
    state: State | None = Field(None, description="only those in this state")
    kind: AnyKind | None = Field(None, description="only those of this kind")
    project: str | None = Field(None, max_length=201, description="only those of this project")
    dataset: str | None = Field(None, max_length=200, description="only those on this data set: name, name@version, id")
    q: str | None = Field(None, max_length=200, description=WORDS)
    created_by: str | None = Field(None, max_length=200, description="only those of this user")


class DatasetsQuery(PageQuery):
    state: DatasetState | None = Field(None, description="only those in this state; none: all but duplicates")
    format: str | None = Field(None, max_length=40, description="only those read as this format")
    q: str | None = Field(None, max_length=200, description=WORDS)
    created_by: str | None = Field(None, max_length=200, description="only those that this user registered")


class ModelsQuery(PageQuery):
    kind: Literal["network", "registered"] | None = Field(None, description="only these")
    q: str | None = Field(None, max_length=200, description="only those with this text in their name, in any case")


class DeliveriesQuery(PageQuery):
    state: DeliveryState | None = Field(None, description="only those in this state")


class TrialQuery(Query):
    overlays: bool = Field(False, description="show what the model looked at (Grad-CAM)")
    explained: str | None = Field(
        None, min_length=1, max_length=200, description="the class that overlays explain; null: the predicted one"
    )
    timeout: int = Field(30, ge=1, le=MOST_WAIT, description="seconds within which a worker has to answer")


class LogsQuery(Query):
    after: int = Field(0, ge=0, lt=2**63, description="only lines with higher ids")
    limit: int = Field(1000, ge=1, le=10_000, description="most lines")


class AuditQuery(Query):
    user: str | None = Field(None, max_length=200, description="only what this user did")
    action: str | None = Field(None, max_length=60, description="only this, e.g. `job.submit`")
    subject: str | None = Field(None, max_length=400, description="only what was done to this id")
    project: str | None = Field(None, max_length=201, description="only what was done in this project")
    since: Moment | None = Field(None, description="only what was done at this time or later")
    until: Moment | None = Field(None, description="only what was done before this time")
    cursor: int | None = Field(None, ge=1, lt=2**63, description="the `next_cursor` of the page before")
    limit: int = Field(50, ge=1, le=500, description="most items of a page")


class EventsQuery(Query):
    topic: list[Topic] = Field(default_factory=list, max_length=50, description="what is told of; none: all")


class UseQuery(Query):
    hours: int = Field(24, ge=1, le=KEPT_HOURS, description="that it goes back")
    points: int = Field(96, ge=1, le=1000, description="into how many equal times they are parted")


class MetricsQuery(Query):
    name: list[str] = Field(default_factory=list, max_length=50, description="only these; repeatable")


BodyT = TypeVar("BodyT", bound=Body)
QueryT = TypeVar("QueryT", bound=Query)


def parse_body(model: type[BodyT]) -> BodyT:
    """The request's JSON body. Raises InvalidInput with every problem."""
    try:
        values = plain_json.loads(request.get_data())
        if not isinstance(values, dict):
            raise ValueError("must be an object")
    except (ValueError, RecursionError) as error:
        raise InvalidInput.one("", f"the body is not JSON that can be used: {error}") from None
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise InvalidInput(problems_of(error, model=model)) from None


def parse_query(model: type[QueryT]) -> QueryT:
    """The request's query string. Raises InvalidInput with every problem."""
    values: dict[str, Any] = {}
    for name, texts in request.args.lists():
        field = model.model_fields.get(name)
        is_list = field is not None and get_origin(field.annotation) is list
        values[name] = texts if is_list else texts[-1]
        if any("\0" in text for text in texts):
            raise InvalidInput.one(name, "must not contain NUL")
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise InvalidInput(problems_of(error, model=model)) from None


def idempotency_key() -> str | None:
    """The header `Idempotency-Key`. Raises InvalidInput where it is empty or too long."""
    key = request.headers.get("Idempotency-Key")
    if key is not None and not re.fullmatch(IDEMPOTENCY_KEY, key):
        raise InvalidInput.one("Idempotency-Key", "must be 1 to 200 printable characters of ASCII")
    return key


def content_digest() -> str:
    """The SHA-256, hex, of the header `Content-Digest: sha-256=:base64:` (RFC 9530). Raises InvalidInput."""
    match = re.search(r"sha-256=:([A-Za-z0-9+/]{43}=):", request.headers.get("Content-Digest", ""))
    if match is None:
        raise InvalidInput.one("Content-Digest", "must tell the digest of the body: sha-256=:base64:")
    return base64.b64decode(match[1]).hex()


def preferred_wait() -> int | None:
    """Seconds of the header `Prefer: wait=N` (RFC 7240), at most `MOST_WAIT`; None where it asks for none."""
    match = re.search(r"(?:^|,)\s*wait\s*=\s*\"?(\d{1,9})\"?\s*(?:[,;]|$)", request.headers.get("Prefer", ""))
    return None if match is None else min(int(match[1]), MOST_WAIT)
