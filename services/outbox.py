"""What webhooks are to be told: written in the transaction of the job's end, so that nothing is lost whatever dies.

Whoever delivers takes what is due for a while (`claim`) and writes what came of it (`settle`). One that dies meanwhile
leaves it to others: then the receiver may hear of it twice, under the same id.

For a webhook that is off nothing is written; what was written before is held until it is on again (`release`).
"""

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, delete, insert, or_, select, update
from sqlalchemy.orm import Session

from services.database import Database, now_ms
from services.ids import new_id
from services.tables import Dataset, Delivery, Job, Webhook

DELAYS = (10.0, 30.0, 120.0, 600.0, 1800.0, 3600.0, 3 * 3600.0, 6 * 3600.0, 12 * 3600.0)  # seconds between tries
MOST_TRIES = len(DELAYS) + 1
JITTER = 0.2  # of a delay, either way: receivers that come back are not called by all at once
CLAIM_SECONDS = 120.0  # after which a try counts as lost
DAY_MS = 24 * 3600 * 1000

_JOB = (
    Job.id,
    Job.kind,
    Job.name,
    Job.state,
    Job.reason,
    Job.error,
    Job.parent_id,
    Job.created_by,
    Job.created_at,
    Job.started_at,
    Job.finished_at,
)


@dataclass(frozen=True)
class Claimed:
    """A delivery that is to be tried now. `webhook` is None where that was removed meanwhile."""

    delivery: Delivery
    webhook: Webhook | None


def tell_end(session: Session, job_id: str) -> None:
    """Writes down who is to hear of a job's end. Belongs into the transaction that ends it."""
    concerned = or_(Webhook.everyone, Webhook.created_by == Job.created_by)
    wanted = select(Webhook.id.label("webhook"), Webhook.states, Dataset.name.label("dataset"), *_JOB)
    wanted = wanted.join(Job, concerned).outerjoin(Dataset, Dataset.id == Job.dataset_id)
    wanted = wanted.where(Job.id == job_id, Webhook.active, or_(Webhook.children, Job.parent_id.is_(None)))
    for row in session.execute(wanted.order_by(Webhook.id)).mappings():
        if row["state"] in row["states"]:
            facts = {"dataset": row["dataset"], **{column.key: row[column.key] for column in _JOB}}
            _add(session, row["webhook"], f"job.{row['state']}", facts, job_id)


def add_ping(session: Session, webhook_id: str) -> str:
    """Writes down that a webhook is to be tried. Returns the delivery's id."""
    return _add(session, webhook_id, "ping", {}, None)


def _add(session: Session, webhook_id: str, event: str, facts: dict[str, Any], job_id: str | None) -> str:
    delivery_id = new_id()
    session.execute(
        insert(Delivery).values(
            id=delivery_id,
            webhook_id=webhook_id,
            event=event,
            job_id=job_id,
            facts=facts,
            state="waiting",
            tries=0,
            tries_left=MOST_TRIES,
            created_at=now_ms(),
            next_at=now_ms(),
        )
    )
    return delivery_id


def is_due(database: Database) -> bool:
    """Whether anything is to be tried now. Costs next to nothing, and locks nothing."""
    with database.read() as session:
        return session.scalar(_due().limit(1)) is not None


def claim(database: Database, busy: Collection[str] = ()) -> Claimed | None:
    """Takes the delivery that has been due for longest, of webhooks that are not `busy`; None where there is none."""
    due = _due().where(Delivery.webhook_id.not_in(list(busy))).order_by(Delivery.next_at, Delivery.id)
    chosen = due.limit(1).with_for_update(skip_locked=True).scalar_subquery()
    with database.write() as session:
        row = session.scalar(
            update(Delivery)
            .where(Delivery.id == chosen, Delivery.state == "waiting")
            .values(
                tries=Delivery.tries + 1,
                tries_left=Delivery.tries_left - 1,
                next_at=now_ms() + round(CLAIM_SECONDS * 1000),
                status=None,
                error=None,  # so that `release` tells what is under way from what waits after a failure
            )
            .returning(Delivery)
            .execution_options(synchronize_session=False)
        )
        return None if row is None else Claimed(row, session.get(Webhook, row.webhook_id))


def _due() -> Select[str]:
    """Ids of what is to be tried now. What is to no webhook any more is: it is given up."""
    is_due = (Delivery.state == "waiting") & (Delivery.next_at <= now_ms())
    return select(Delivery.id).where(is_due, Delivery.webhook_id.not_in(select(Webhook.id).where(~Webhook.active)))


def settle(
    database: Database,
    delivery: Delivery,
    status: int | None,
    error: str | None,
    *,
    final: bool = False,
    delays: Sequence[float] = DELAYS,
) -> str:
    """Writes what came of a try: delivered where `error` is None, else tried again later, or given up after the last
    try or where it is `final`. Returns the delivery's state.

    Writes nothing where others have tried it since.
    """
    values: dict[str, Any] = {"status": status, "error": error}
    if error is None:
        values |= {"state": "delivered", "ended_at": now_ms()}
    elif final or delivery.tries_left <= 0:
        values |= {"state": "given_up", "ended_at": now_ms()}
    else:
        failed = MOST_TRIES - delivery.tries_left  # of this round
        delay = delays[min(max(failed, 1), len(delays)) - 1] * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311
        values |= {"next_at": now_ms() + round(delay * 1000)}
    ours = (Delivery.id == delivery.id) & (Delivery.tries == delivery.tries) & (Delivery.state == "waiting")
    with database.write() as session:
        session.execute(update(Delivery).where(ours).values(**values))
    return str(values.get("state", "waiting"))


def repeat(session: Session, delivery_id: str) -> None:
    """Has a delivery tried again now, under its id, with as many tries as a new one."""
    again = {"state": "waiting", "tries_left": MOST_TRIES, "next_at": now_ms(), "ended_at": None}
    session.execute(update(Delivery).where(Delivery.id == delivery_id).values(**again))


def release(session: Session, webhook_id: str) -> None:
    """Has all that waits for a webhook tried now, with the tries that it had left; but not what is under way, which its
    receiver would hear twice."""
    held = (Delivery.webhook_id == webhook_id) & (Delivery.state == "waiting") & Delivery.error.is_not(None)
    session.execute(update(Delivery).where(held).values(next_at=now_ms()))


def forget(database: Database, after_days: float) -> int:
    """Deletes deliveries that ended so long ago, and those of webhooks that are gone. Returns how many."""
    old = (Delivery.state != "waiting") & (Delivery.ended_at < now_ms() - round(after_days * DAY_MS))
    orphaned = Delivery.webhook_id.not_in(select(Webhook.id))
    with database.write() as session:
        gone = session.scalars(delete(Delivery).where(or_(old, orphaned)).returning(Delivery.id)).all()
    return len(gone)
