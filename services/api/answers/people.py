"""Answers about people: who they are, their tokens and projects, and the audit trail of what they did."""

from typing import Any, Literal

from pydantic import Field

from services.api.answers.base import ID, OTHER_ID, Answer, Id, Sha256, Time
from services.tokens import Role, Scope


class Me(Answer):
    """Whose token it is, and what it may."""

    user: str = Field(examples=["ada"])
    role: Role
    scopes: list[Scope] = Field(examples=[["read", "submit"]])
    token_id: str | None = Field(examples=[ID])
    expires_at: Time | None = Field(description="null: when it is revoked")
    project: str = Field(description="the user's own, where things go that name none", examples=["~ada"])


class Token(Answer):
    """A token, without its secret."""

    id: Id
    name: str = Field(examples=["notebook"])
    user: str = Field(examples=["ada"])
    role: Role
    scopes: list[Scope] = Field(description="what it may of what its role may", examples=[["read", "submit"]])
    created_at: Time
    expires_at: Time | None = Field(description="null: it holds until it is revoked")
    last_used_at: Time | None = Field(description="to the minute; null: never")
    revoked_at: Time | None = Field(examples=[None])


class NewToken(Token):
    """A token that was made."""

    token: str = Field(description="the secret; it is shown this once", examples=["bgp_5n8Zc…"])


class Project(Answer):
    """What several people share."""

    id: str = Field(examples=["derma"])
    title: str = Field(examples=["Dermoscopy study"])
    created_by: str = Field(examples=["ada"])
    created_at: Time
    role: Role | None = Field(description="one's own in it; null: an admin of the service who is no member")


class Member(Answer):
    """Somebody in a project."""

    user: str = Field(examples=["bob"])
    role: Role
    added_by: str = Field(examples=["ada"])
    added_at: Time


class AuditEntry(Answer):
    """Something that somebody did, or was refused."""

    number: int = Field(description="1, 2, … without gaps", examples=[42])
    at: Time
    user: str = Field(examples=["ada"])
    token_id: str | None = Field(examples=[ID])
    action: str = Field(examples=["job.submit"])
    subject: str = Field(description="id of what it was done to", examples=[OTHER_ID])
    project: str | None = Field(examples=["derma"])
    outcome: Literal["done", "refused"]
    detail: dict[str, Any] = Field(examples=[{"kind": "train"}])
    digest: Sha256
