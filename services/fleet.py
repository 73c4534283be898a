"""Workers as the control plane knows them: each slot tells every few seconds that it is there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, insert, update

from services.database import Database, now_ms
from services.jobs import changed
from services.tables import Worker


@dataclass(frozen=True)
class Member:
    """One worker slot. `device` is a name for people; `resource_classes` are those whose jobs it takes."""

    name: str
    host: str
    pid: int
    version: str
    device: str
    resource_classes: Sequence[str]


def beat(database: Database, member: Member, job_id: str | None, figures: Mapping[str, Any]) -> None:
    """Registers the slot, or tells that it is still there, with its present job and host figures."""
    present = {"job_id": job_id, "figures": dict(figures), "seen_at": now_ms()}
    with database.write() as session:
        if not changed(session.execute(update(Worker).where(Worker.name == member.name).values(**present))):
            session.execute(
                insert(Worker).values(
                    name=member.name,
                    host=member.host,
                    pid=member.pid,
                    version=member.version,
                    device=member.device,
                    resource_classes=list(member.resource_classes),
                    started_at=now_ms(),
                    **present,
                )
            )


def leave(database: Database, name: str) -> None:
    """Forgets a slot that has stopped in good order."""
    with database.write() as session:
        session.execute(delete(Worker).where(Worker.name == name))


def forget_lost(database: Database, after_seconds: float) -> None:
    """Forgets the slots that have not been heard of for so long."""
    with database.write() as session:
        session.execute(delete(Worker).where(Worker.seen_at < now_ms() - round(after_seconds * 1000)))
