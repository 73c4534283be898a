"""How busy workers were: each slot tells means over about a minute, kept for two days, and shown as small charts."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import delete, func, select

from services.database import Database, now_ms
from services.tables import WorkerUse

TOLD_SECONDS = 60.0  # between two rows of a slot
KEPT_HOURS = 48
KEPT_MS = KEPT_HOURS * 3600 * 1000
FORGOTTEN_AT_ONCE = 5000  # rows


@dataclass(frozen=True)
class Use:
    """Means over a time. busy: the share of it with a job, from 0 to 1; the others in percent, None: not told."""

    busy: float
    gpu_percent: float | None = None
    cpu_percent: float | None = None


def history(database: Database, hours: float, bins: int) -> dict[str, Sequence[Use | None]]:
    """Means of each slot over equal parts of the last hours, the latest last; None where it told nothing."""
    width = round(hours * 3_600_000 / bins)
    with database.read() as session:
        now = session.scalar(select(now_ms())) or 0
        ago = (now - WorkerUse.at) // width
        means = [func.avg(column) for column in (WorkerUse.busy, WorkerUse.gpu_percent, WorkerUse.cpu_percent)]
        query = select(WorkerUse.worker, ago, *means).where(WorkerUse.at > now - bins * width, WorkerUse.at <= now)
        rows = session.execute(query.group_by(WorkerUse.worker, ago)).all()
    found: dict[str, list[Use | None]] = defaultdict(lambda: [None] * bins)
    for worker, before, *values in rows:
        found[worker][bins - 1 - int(before)] = Use(*values)
    return dict(found)


def forget(database: Database) -> int:
    """Deletes some of the rows that are old enough. Returns how many; 0: none is left."""
    with database.write() as session:
        old = select(WorkerUse.worker, WorkerUse.at).where(WorkerUse.at < now_ms() - KEPT_MS)
        last = session.scalar(select(func.max(old.order_by(WorkerUse.at).limit(FORGOTTEN_AT_ONCE).subquery().c.at)))
        if last is None:
            return 0
        return len(session.scalars(delete(WorkerUse).where(WorkerUse.at <= last).returning(WorkerUse.at)).all())
