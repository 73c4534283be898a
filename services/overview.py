"""What a service does as a whole: the queue over the last day, and what its store holds.

Counts alone, so that everybody who may sign in may see them.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from sqlalchemy import JSON, and_, case, func, select, true, type_coerce
from sqlalchemy.orm import Session, aliased

from services.database import Database, now_ms
from services.tables import Artifact, Checkpoint, Dataset, Job, Transition

HOUR_MS = 3_600_000
HOURS = 24
LEAST = 10.0  # seconds
T = TypeVar("T")


@dataclass(frozen=True)
class Hour:
    """One hour, `ago` hours before now at its end. waiting: jobs in the queue at its end; entered, begun: jobs that
    came into the queue, and that began for the first time; mean_wait, longest_wait: seconds of those, if any."""

    ago: int
    waiting: int
    entered: int
    begun: int
    mean_wait: float | None
    longest_wait: float | None


@dataclass(frozen=True)
class Storage:
    """Bytes that the database knows of in the store."""

    datasets: int
    artifacts: int
    checkpoints: int

    @property
    def whole(self) -> int:
        return self.datasets + self.artifacts + self.checkpoints


def last_day(database: Database) -> list[Hour]:
    """The queue in each of the last 24 hours, the oldest first, from what happened to jobs.

    Jobs with children wait through them and are not counted. How long a job waited is counted from its submission.
    """
    previous, child = aliased(Transition), aliased(Job)
    before = select(previous.state).where(previous.job_id == Transition.job_id, previous.id < Transition.id)
    came_from = before.order_by(previous.id.desc()).limit(1).scalar_subquery()
    has_children = select(child.id).where(child.parent_id == Job.id).exists()
    with database.read() as session:
        now = session.scalar(select(now_ms())) or 0
        since = now - HOURS * HOUR_MS
        happened = select(Transition.at, Transition.state, Transition.attempt, Job.created_at, came_from.label("was"))
        happened = happened.join(Job, Job.id == Transition.job_id).where(~has_children, Transition.at >= since)
        lately = happened.where(Transition.id >= _first_since(session, since))
        # Else PostgreSQL looks for where a job came from once for every column that asks for it.
        row = lately.cte().prefix_with("MATERIALIZED")
        was = func.coalesce(row.c.was, "")
        enters = and_(row.c.state == "queued", was != "queued")
        leaves = and_(row.c.state != "queued", was == "queued")
        begins = and_(leaves, row.c.state == "running", row.c.attempt <= 1)
        wait = case((begins, row.c.at - row.c.created_at))
        hour = (now - row.c.at) // HOUR_MS
        counted = [func.sum(case((which, 1), else_=0)) for which in (enters, leaves, begins)]
        query = select(hour, *counted, func.avg(wait), func.max(wait)).group_by(hour)
        told = {int(found[0]): found[1:] for found in session.execute(query)}
        queued = select(func.count()).select_from(Job).where(Job.state == "queued", ~has_children)
        waiting = session.scalar(queued) or 0
    hours = []
    for ago in range(HOURS):
        entered, left, begun, mean, longest = tuple(told.get(ago, (0, 0, 0, None, None)))
        seconds = [None if ms is None else float(ms) / 1000 for ms in (mean, longest)]
        hours.append(Hour(ago, waiting, int(entered), int(begun), *seconds))
        waiting = max(0, waiting - int(entered) + int(left))
    return hours[::-1]


def _first_since(session: Session, since: int) -> int:
    """About the first row that was written since then: ids ascend with time, so that no index on times is needed."""
    low, high = 0, session.scalar(select(func.max(Transition.id))) or 0
    while low < high:
        middle = (low + high) // 2
        found = select(Transition.at).where(Transition.id >= middle).order_by(Transition.id).limit(1)
        if (session.scalar(found) or 0) >= since:
            high = middle
        else:
            low = middle + 1
    return low


def storage(database: Database) -> Storage:
    """What is stored, by kind. A file that several results share counts for each."""
    with database.read() as session:
        artifacts = session.scalar(select(func.coalesce(func.sum(Artifact.size), 0))) or 0
        return Storage(_bytes(session, Dataset), int(artifacts), _bytes(session, Checkpoint))


def _bytes(session: Session, table: type[Dataset] | type[Checkpoint]) -> int:
    """The sizes of all `files`, added up where they are: here it would take a second for some ten thousand rows."""
    file = func.json_each(table.files).table_valued("key", "value")
    size = type_coerce(file.c.value, JSON)["size"].as_float()  # exact to 9 PB
    return int(session.scalar(select(func.coalesce(func.sum(size), 0)).select_from(table).join(file, true())) or 0)


class Remembered(Generic[T]):
    """An answer that is good enough for a while: a thousand times as long as it took, `LEAST` seconds at least and
    `most` at most. So what is cheap to ask, as all is in the beginning, is never told wrong for long.
    """

    def __init__(self, ask: Callable[[Database], T], most: float) -> None:
        self._ask, self._most = ask, most
        self._known: dict[str, tuple[float, T]] = {}

    def __call__(self, database: Database) -> T:
        begun = time.monotonic()
        known = self._known.get(database.url)
        if known is None or begun > known[0]:
            answer = self._ask(database)
            ended = time.monotonic()
            known = ended + min(self._most, max(LEAST, 1000 * (ended - begun))), answer
            self._known = {database.url: known}
        return known[1]
