"""Webhooks of people: made, changed, removed, tried out, and what each was told. What is not yours does not exist."""

import base64
import secrets
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.orm import Session

from bgpanet.errors import InvalidInput
from services import addresses, audit, outbox
from services.audit import Act
from services.database import Database, now_ms
from services.errors import Conflict, Forbidden, NotFound
from services.ids import new_id
from services.tables import Delivery, Webhook
from services.tokens import Principal
from services.views import Page, timestamp

DeliveryState = Literal["waiting", "delivered", "given_up"]
MOST_OF_USER = 20
SECRET_PREFIX = "whsec_"  # noqa: S105 - what secrets begin with
_TIMES = ("created_at", "started_at", "finished_at")


@dataclass(frozen=True)
class NewWebhook:
    """What is asked for. states: the ends to hear of; children: also of jobs with a parent; everyone: of all users."""

    url: str
    states: Sequence[str]
    children: bool = False
    everyone: bool = False


@dataclass(frozen=True)
class WebhookChange:
    """What a webhook is to be; None: it stays as it is. Its address stays, for which its secret is."""

    active: bool | None = None
    states: Sequence[str] | None = None
    children: bool | None = None
    everyone: bool | None = None


def create(
    database: Database, principal: Principal, new: NewWebhook, allowed: Collection[str]
) -> tuple[dict[str, Any], str]:
    """Makes a webhook. Returns it, and the secret that signs what it is told, which is shown this once.

    Raises:
        InvalidInput: its address can't be called.
        Conflict: its owner has as many as may be.
    """
    if (problem := addresses.problem_of(new.url, allowed)) is not None:
        raise InvalidInput.one("url", problem)
    secret = SECRET_PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()
    with database.write() as session:
        owned = select(func.count()).select_from(Webhook).where(Webhook.created_by == principal.user)
        if (session.scalar(owned) or 0) >= MOST_OF_USER:
            raise Conflict(f"{principal.user} has {MOST_OF_USER} webhooks, which is the most; remove one")
        webhook = session.scalars(
            insert(Webhook)
            .values(
                id=new_id(),
                url=new.url,
                states=list(new.states),
                children=new.children,
                everyone=new.everyone,
                secret=secret,
                created_by=principal.user,
                created_at=now_ms(),
            )
            .returning(Webhook)
        ).one()
        detail = {"url": new.url, "everyone": new.everyone}
        audit.append(database, session, Act(principal, "webhook.create", webhook.id, detail=detail))
        return _shown(webhook), secret


def list_all(database: Database, principal: Principal) -> list[dict[str, Any]]:
    """One's webhooks, newest first; an admin's list has everyone's."""
    query = select(Webhook).order_by(Webhook.id.desc())
    if not principal.is_admin:
        query = query.where(Webhook.created_by == principal.user)
    with database.read() as session:
        return [_shown(webhook) for webhook in session.scalars(query)]


def get(database: Database, principal: Principal, webhook_id: str) -> dict[str, Any]:
    """A webhook, without its secret. Raises NotFound."""
    with database.read() as session:
        return _shown(_find(session, principal, webhook_id))


def change(database: Database, principal: Principal, webhook_id: str, asked: WebhookChange) -> dict[str, Any]:
    """Changes a webhook. While it is off it is told nothing, and what waits is held until it is on. Returns it.

    Raises:
        NotFound: there is none.
        Forbidden: it would be on and hear of the jobs of all users, and who asks is no admin.
    """
    with database.write() as session:
        webhook = _find(session, principal, webhook_id, is_to_change=True)
        is_on = webhook.active if asked.active is None else asked.active
        of_all = webhook.everyone if asked.everyone is None else asked.everyone
        # Also one that an admin made: who is none any more can switch it off, or keep it for jobs of their own.
        if not principal.is_admin and of_all and (is_on or asked.everyone):
            raise Forbidden("only an admin's webhook may hear of the jobs of all users")
        values = {
            name: list(value) if name == "states" else value
            for name, value in asdict(asked).items()
            if value is not None
        }
        if new := {name: value for name, value in values.items() if value != getattr(webhook, name)}:
            session.execute(update(Webhook).where(Webhook.id == webhook_id).values(**new))
            if new.get("active"):
                outbox.release(session, webhook_id)
            session.refresh(webhook)
            audit.append(database, session, Act(principal, "webhook.change", webhook_id, detail=new))
        return _shown(webhook)


def remove(database: Database, principal: Principal, webhook_id: str) -> None:
    """Ends a webhook, with what it was told and was yet to be told. Raises NotFound."""
    with database.write() as session:
        _find(session, principal, webhook_id)
        session.execute(delete(Webhook).where(Webhook.id == webhook_id))
        session.execute(delete(Delivery).where(Delivery.webhook_id == webhook_id))
        audit.append(database, session, Act(principal, "webhook.remove", webhook_id))


def ping(database: Database, principal: Principal, webhook_id: str) -> dict[str, Any]:
    """Has a webhook told something that is about no job. Returns the delivery.

    Raises:
        NotFound: there is none.
        Conflict: it is off.
    """
    with database.write() as session:
        webhook = _find_active(session, principal, webhook_id)
        return _told(session.get_one(Delivery, outbox.add_ping(session, webhook_id)), webhook)


def repeat(database: Database, principal: Principal, webhook_id: str, delivery_id: str) -> dict[str, Any]:
    """Has a delivery made again, under the same id. Returns it.

    Raises:
        NotFound: there is none.
        Conflict: its webhook is off.
    """
    with database.write() as session:
        webhook = _find_active(session, principal, webhook_id)
        row = session.get(Delivery, delivery_id)
        if row is None or row.webhook_id != webhook_id:
            raise NotFound(f"webhook {webhook_id} has no delivery {delivery_id}")
        outbox.repeat(session, delivery_id)
        session.refresh(row)
        return _told(row, webhook)


def deliveries(
    database: Database,
    principal: Principal,
    webhook_id: str,
    state: str | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> Page:
    """What a webhook was told and is yet to be told, newest first. Raises NotFound."""
    query = select(Delivery).where(Delivery.webhook_id == webhook_id)
    if state is not None:
        query = query.where(Delivery.state == state)
    if cursor is not None:
        query = query.where(Delivery.id < cursor)
    with database.read() as session:
        webhook = _find(session, principal, webhook_id)
        rows = session.scalars(query.order_by(Delivery.id.desc()).limit(limit + 1)).all()
    items = [_told(row, webhook) for row in rows[:limit]]
    return Page(items, items[-1]["id"] if len(rows) > limit else None)


def content_of(delivery: Delivery) -> dict[str, Any]:
    """What is sent: the same at every try."""
    made: dict[str, Any] = {"id": delivery.id, "event": delivery.event, "at": timestamp(delivery.created_at)}
    if delivery.facts:
        made["job"] = {
            {"parent_id": "parent"}.get(name, name): timestamp(value) if name in _TIMES else value
            for name, value in delivery.facts.items()
        }
    return made


def _find(session: Session, principal: Principal, webhook_id: str, *, is_to_change: bool = False) -> Webhook:
    webhook = session.get(Webhook, webhook_id, with_for_update=True if is_to_change else None)
    if webhook is None or not (principal.is_admin or webhook.created_by == principal.user):
        raise NotFound(f"there is no webhook {webhook_id}")
    return webhook


def _find_active(session: Session, principal: Principal, webhook_id: str) -> Webhook:
    webhook = _find(session, principal, webhook_id)
    if not webhook.active:
        raise Conflict(f"webhook {webhook_id} is off, and is told nothing; switch it on first")
    return webhook


def _shown(webhook: Webhook) -> dict[str, Any]:
    return {
        "id": webhook.id,
        "url": webhook.url,
        "active": webhook.active,
        "states": webhook.states,
        "children": webhook.children,
        "everyone": webhook.everyone,
        "created_by": webhook.created_by,
        "created_at": timestamp(webhook.created_at),
    }


def _told(row: Delivery, webhook: Webhook) -> dict[str, Any]:
    return {
        "id": row.id,
        "webhook": row.webhook_id,
        "event": row.event,
        "job": row.job_id,
        "state": row.state,
        "tries": row.tries,
        "status": row.status,
        "error": row.error,
        "created_at": timestamp(row.created_at),
        "next_at": timestamp(row.next_at) if row.state == "waiting" and webhook.active else None,
        "ended_at": timestamp(row.ended_at),
        "content": content_of(row),
    }
