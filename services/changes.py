"""What is new of a job since a place in its story: its states, figures, log lines, progress, and its children's states.

A `Place` says what somebody has been told; it fits into one line of text, which comes with every event and from which
the next one can be asked for, of any process. What is told, and when once is enough:

- `state`, `log`: what happened and what the run printed: all of it, once. A job's rows are written under a lock of the
  job, so that their ids ascend in the order in which they can be seen.
- `started`: an attempt begins after a step; figures of later steps, which were told, no longer hold and come again.
- `metrics`: the figures of a step and epoch, as the run said them: all of them, once.
- `progress`, `child`: how far the job is, and the state of each child: the newest, whenever it is another one.
- `end`: the job as it ended; nothing comes after it.
"""

import json
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Literal, get_args

from sqlalchemy import Select, func, or_, select
from sqlalchemy.orm import Session

from bgpanet.errors import InvalidInput
from services import views
from services.database import Database
from services.tables import TERMINAL, Attempt, Job, LogLine, Metric, Transition
from services.tokens import Principal

Topic = Literal["state", "log", "metrics", "progress", "child"]
TOPICS: tuple[Topic, ...] = get_args(Topic)
ChangeKind = Literal[Topic, "started", "end"]
LINES_AT_ONCE = 500
MOST_CHILDREN = 10_000  # of which a place can tell; a study has fewer
WHOLE_STEP = 999_999_999  # an epoch above every other
_LETTERS = {"queued": "q", "running": "r", "paused": "p", "succeeded": "s", "failed": "f", "cancelled": "c"}
_PLACE = re.compile(
    r"t(\d{1,18})l(\d{1,18})a(\d{1,9})m(\d{1,9})\.(\d{1,9})p([0-9a-f]{0,8})c((?:[qrpsfc]\d{1,4}){0,2500})(e?)", re.ASCII
)


@dataclass(frozen=True)
class Place:
    """How much of a job's story was told.

    transition, line: ids of the last ones; attempt: number of the last one that was told to have started; step, epoch:
    of the last figures; progress: its digest; children: a letter for the state of each, by id; ended: all was told.
    """

    transition: int = 0
    line: int = 0
    attempt: int = 0
    step: int = 0
    epoch: int = 0
    progress: str = ""
    children: str = ""
    ended: bool = False

    def __str__(self) -> str:
        runs = "".join(f"{letter}{len(list(run))}" for letter, run in groupby(self.children))
        end = "e" if self.ended else ""
        told = f"t{self.transition}l{self.line}a{self.attempt}m{self.step}.{self.epoch}"
        return f"{told}p{self.progress}c{runs}{end}"

    @classmethod
    def parse(cls, text: str) -> "Place":
        """The place that a text says. Raises InvalidInput."""
        found = _PLACE.fullmatch(text)
        runs = re.findall(r"([a-z])(\d+)", found[7]) if found else []
        if found is None or sum(int(count) for _, count in runs) > MOST_CHILDREN:
            raise InvalidInput.one("Last-Event-ID", "is none that this service sent; leave it out to hear all")
        children = "".join(letter * int(count) for letter, count in runs)
        transition, line, attempt, step, epoch = map(int, found.groups()[:5])
        return cls(transition, line, attempt, step, epoch, found[6], children, bool(found[8]))


@dataclass(frozen=True)
class Change:
    """One thing that is new, and the place after it."""

    kind: ChangeKind
    data: dict[str, Any]
    place: Place


class Story:
    """A job's story from a place on, read bit by bit. kinds: those that are told; `started` comes with `metrics`, and
    `end` always."""

    def __init__(
        self, database: Database, principal: Principal, job_id: str, place: Place, kinds: Sequence[Topic] = ()
    ) -> None:
        self._database, self._principal, self._job_id = database, principal, job_id
        self._kinds = frozenset(kinds or TOPICS)
        self._seen: object = None
        self.place = place

    def read(self, *, anyway: bool = False) -> list[Change]:
        """What is new; where there is much, a part of it, and the rest at the next call.

        anyway: also looks whether it may still be read where nothing is new. Raises NotFound.
        """
        before = None if anyway else self._seen
        with self._database.read() as session:
            self._seen = self._trace(session)
        if before is not None and self._seen == before:
            return []
        # The state first: whatever belongs to an end that is seen was written before it.
        job = views.get_job(self._database, self._principal, self._job_id)
        with self._database.read() as session:
            return list(self._changes(session, job))

    def _trace(self, session: Session) -> object:
        """Something that is another one after any change of the job: whatever a worker writes renews the lease."""
        newest = select(func.max(Transition.id)).where(Transition.job_id == self._job_id).scalar_subquery()
        job = select(Job.state, Job.attempt, Job.lease_expires_at, newest).where(Job.id == self._job_id)
        children = select(Job.id, Job.state, Job.lease_expires_at).where(Job.parent_id == self._job_id)
        return session.execute(job).all(), session.execute(children.order_by(Job.id)).all()

    def _changes(self, session: Session, job: dict[str, Any]) -> Iterator[Change]:
        states = self._states(session)
        end = [states.pop()] if states and states[-1].state in TERMINAL else []
        yield from map(self._state, states)
        yield from self._figures(session)
        lines = self._lines(session)
        yield from (self._told("log", views.log_line_json(line), line=line.id) for line in lines)
        if len(lines) == LINES_AT_ONCE:
            self._seen = None
            return
        yield from self._progress(job)
        yield from self._children(session)
        if job["state"] in TERMINAL:
            yield from map(self._state, end)
            yield self._told("end", job, ended=True)

    def _told(self, kind: ChangeKind, data: dict[str, Any], **place: Any) -> Change:
        self.place = replace(self.place, **place)
        return Change(kind, data, self.place)

    def _states(self, session: Session) -> list[Transition]:
        if "state" not in self._kinds:
            return []
        query = select(Transition).where(Transition.job_id == self._job_id, Transition.id > self.place.transition)
        return list(session.scalars(query.order_by(Transition.id)))

    def _state(self, row: Transition) -> Change:
        return self._told("state", views.transition_json(row), transition=row.id)

    def _lines(self, session: Session) -> list[LogLine]:
        if "log" not in self._kinds:
            return []
        query = select(LogLine).where(LogLine.job_id == self._job_id, LogLine.id > self.place.line)
        return list(session.scalars(query.order_by(LogLine.id).limit(LINES_AT_ONCE)))

    def _figures(self, session: Session) -> Iterator[Change]:
        if "metrics" not in self._kinds:
            return
        started = select(Attempt).where(Attempt.job_id == self._job_id, Attempt.number > self.place.attempt)
        started = started.where(Attempt.resumed_from_step.is_not(None)).order_by(Attempt.number)
        for row in session.scalars(started):
            step = row.resumed_from_step or 0
            back = {"step": step, "epoch": WHOLE_STEP} if self.place.step > step else {}
            yield self._told("started", {"attempt": row.number, "step": step}, attempt=row.number, **back)
        rows = session.scalars(_figures_after(self._job_id, self.place.step, self.place.epoch))
        for (step, epoch), said in groupby(rows, key=lambda row: (row.step, row.epoch)):
            values = {row.name: row.value for row in said}
            yield self._told("metrics", {"step": step, "epoch": epoch, "values": values}, step=step, epoch=epoch)

    def _progress(self, job: dict[str, Any]) -> Iterator[Change]:
        digest = f"{zlib.crc32(json.dumps(job['progress'], sort_keys=True).encode()):08x}"
        if "progress" in self._kinds and digest != self.place.progress:
            yield self._told("progress", job["progress"], progress=digest)

    def _children(self, session: Session) -> Iterator[Change]:
        if "child" not in self._kinds:
            return
        query = select(Job.id, Job.name, Job.position, Job.state, Job.reason).where(Job.parent_id == self._job_id)
        for number, row in enumerate(session.execute(query.order_by(Job.id)).all()):
            known, letter = self.place.children, _LETTERS[row.state]
            if known[number : number + 1] != letter:
                told = known[:number] + letter + known[number + 1 :]
                yield self._told("child", dict(row._mapping), children=told)


def _figures_after(job_id: str, step: int, epoch: int) -> Select[Metric]:
    """A job's figures after an epoch of a step. The primary key is looked up name by name: a long training has tens of
    thousands of figures, and this is asked every second."""
    first = select(func.min(Metric.name).label("name")).where(Metric.job_id == job_id).cte("names", recursive=True)
    following = select(func.min(Metric.name)).where(Metric.job_id == job_id, Metric.name > first.c.name)
    names = first.union_all(select(following.scalar_subquery()).where(first.c.name.is_not(None)))
    after = (Metric.step >= step, or_(Metric.step > step, Metric.epoch > epoch))
    query = select(Metric).join(names, Metric.name == names.c.name).where(Metric.job_id == job_id, *after)
    return query.order_by(Metric.step, Metric.epoch, Metric.name)


def present(database: Database, job_id: str) -> Place:
    """The place of somebody who has just been told a job's states, lines and figures; progress and children follow."""
    with database.read() as session:
        transition = session.scalar(select(func.max(Transition.id)).where(Transition.job_id == job_id))
        line = session.scalar(select(func.max(LogLine.id)).where(LogLine.job_id == job_id))
        attempt = session.scalar(select(func.max(Attempt.number)).where(Attempt.job_id == job_id))
        step = session.scalar(select(func.max(Metric.step)).where(Metric.job_id == job_id))
    return Place(transition or 0, line or 0, attempt or 0, step or 0, WHOLE_STEP if step else 0)
