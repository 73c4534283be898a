"""Answers about webhooks, and what webhooks are told."""

from typing import Literal

from pydantic import Field

from services.api.answers.base import OTHER_ID, Answer, AnyKind, Id, Time
from services.claims import Reason


class Webhook(Answer):
    """An address that is told when jobs end."""

    id: Id
    url: str = Field(examples=["https://lab.example.org/hooks/bgpanet"])
    active: bool = Field(description="false: it is off and is told nothing", examples=[True])
    states: list[Literal["succeeded", "failed", "cancelled"]] = Field(
        description="the ends that it hears of", examples=[["succeeded", "failed"]]
    )
    children: bool = Field(description="also of jobs that have a parent", examples=[False])
    everyone: bool = Field(description="of the jobs of all users", examples=[False])
    created_by: str = Field(examples=["ada"])
    created_at: Time


class NewWebhook(Webhook):
    """A webhook that was made."""

    secret: str = Field(description="signs what it is told; it is shown this once", examples=["whsec_MfKQ9r8G…"])


class EndedJob(Answer):
    """A job, as a webhook is told of its end."""

    id: Id
    kind: AnyKind
    name: str = Field(examples=["train bgpanet on ham10000"])
    state: Literal["succeeded", "failed", "cancelled"] = Field(examples=["succeeded"])
    reason: Reason | None = Field(examples=[None])
    error: str | None = Field(examples=[None])
    dataset: str = Field(examples=["ham10000"])
    parent: str | None = Field(examples=[None])
    created_by: str = Field(examples=["ada"])
    created_at: Time
    started_at: Time | None
    finished_at: Time


class Content(Answer):
    """What a webhook is told: the JSON that is sent to it."""

    id: Id
    event: Literal["job.succeeded", "job.failed", "job.cancelled", "ping"] = Field(examples=["job.succeeded"])
    at: Time
    job: EndedJob | None = Field(None, description="absent from a ping")


class Delivery(Answer):
    """Something that a webhook was told, or is yet to be told."""

    id: Id
    webhook: Id
    event: str = Field(examples=["job.succeeded"])
    job: str | None = Field(examples=[OTHER_ID])
    state: Literal["waiting", "delivered", "given_up"] = Field(examples=["delivered"])
    tries: int = Field(description="so far", examples=[1])
    status: int | None = Field(description="of the last answer; null: there was none", examples=[200])
    error: str | None = Field(description="what was wrong with the last try", examples=[None])
    created_at: Time
    next_at: Time | None = Field(
        description="when it is tried again; null: not, or not while its webhook is off", examples=[None]
    )
    ended_at: Time | None
    content: Content
