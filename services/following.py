"""A job's events as they come: from its stream, which goes on where it was cut off, and by asking where there is none.

Each is told once, whichever way it came: what a stream says again after a break, or says after it was asked for, is
left out.
"""

import json
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from services.client_errors import Broken, Invalid, TooBusy, Unreachable
from services.connection import Connection, path_part

ENDED = ("succeeded", "failed", "cancelled")
TOPICS = ("state", "metrics", "log", "progress", "child")
SILENCE_SECONDS = 120.0  # of the service, which is forgiven: it may be started anew meanwhile
QUIET_SECONDS = 25.0  # in a stream, which says every 10 s that it is there
NEAR_SECONDS = 12.0  # before a deadline: a stream may be silent for longer
ASK_SECONDS = 10.0  # for which a job is asked for after no stream was to be had
FRUITLESS = 3  # streams in a row that brought nothing
HELD_BACK_SECONDS = 600.0  # for which it is asked for after a stream that was open and silent from its start
CHILD = ("id", "name", "position", "state", "reason")


@dataclass(frozen=True)
class JobEvent:
    """One thing that happened to a job.

    kind: `state`, `started`, `metrics`, `log`, `progress`, `child` or `end`; data: as `GET jobs/{id}/events` says it.
    """

    kind: str
    data: dict[str, Any]


Events = Generator[JobEvent, None, None]


@dataclass
class Told:
    """What was told of a job already."""

    state: int = 0
    line: int = 0
    attempt: int = 0
    figures: tuple[int, float] = (0, 0)
    progress: dict[str, Any] | None = None
    children: dict[str, str] = field(default_factory=dict)

    def is_new(self, kind: str, data: Mapping[str, Any]) -> bool:
        """Whether an event was not told before; from now on it was."""
        before = (
            self.state,
            self.line,
            self.attempt,
            self.figures,
            self.progress,
            self.children.get(data.get("id", "")),
        )
        if kind == "state":
            self.state = max(self.state, data["id"])
        elif kind == "log":
            self.line = max(self.line, data["id"])
        elif kind == "started" and data["attempt"] > self.attempt:
            # Figures after this step, which were told, no longer hold and come again.
            self.attempt, self.figures = data["attempt"], min(self.figures, (data["step"], float("inf")))
        elif kind == "metrics":
            self.figures = max(self.figures, (data["step"], data["epoch"]))
        elif kind == "progress":
            self.progress = dict(data)
        elif kind == "child":
            self.children[data["id"]] = data["state"]
        after = (
            self.state,
            self.line,
            self.attempt,
            self.figures,
            self.progress,
            self.children.get(data.get("id", "")),
        )
        return after != before or kind == "end"


class Following:
    """An iterator of a job's events until its end.

    topics: those told of; none: all. every: seconds between two looks where there is no stream. timeout: seconds.

    Raises:
        ApiError: the service refuses, or was silent for two minutes.
        TimeoutError: the job had not ended in time.
    """

    def __init__(
        self,
        connection: Connection,
        job_id: str,
        topics: Sequence[str] = (),
        every: float = 1.0,
        timeout: float | None = None,
    ) -> None:
        if unknown := set(topics) - set(TOPICS):
            raise ValueError(f"no topic: {', '.join(sorted(unknown))}; they are {', '.join(TOPICS)}")
        self.job_id, self.topics, self.every = job_id, tuple(topics), every
        self._connection, self._path = connection, f"jobs/{path_part(job_id)}"
        self._timeout, self._deadline = timeout, None if timeout is None else time.monotonic() + timeout
        self._told, self._place = Told(), ""
        self._heard = time.monotonic()
        self._ask_until, self._fruitless = 0.0, 0
        self._events = self._follow()

    def __iter__(self) -> Iterator[JobEvent]:
        return self

    def __next__(self) -> JobEvent:
        return next(self._events)

    def close(self) -> None:
        """Ends it, and its stream."""
        self._events.close()

    def _follow(self) -> Events:
        while True:
            try:
                with closing(self._asked() if self._must_ask() else self._streamed()) as events:
                    for event in events:
                        yield event
                        if event.kind == "end":
                            return
            except (Unreachable, Broken, TooBusy):
                if time.monotonic() - self._heard > SILENCE_SECONDS:
                    raise
            if self._left() <= 0:
                raise TimeoutError(f"job {self.job_id} had not ended after {self._timeout:.0f} s")
            time.sleep(min(self.every, self._left()))

    def _left(self) -> float:
        return float("inf") if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def _must_ask(self) -> bool:
        return time.monotonic() < self._ask_until or self._left() < NEAR_SECONDS

    def _ask_for(self, seconds: float) -> None:
        self._ask_until, self._fruitless = time.monotonic() + seconds, 0

    # ── The stream ────────────────────────────────────────────────────────────────────────────────────────────────

    def _streamed(self) -> Events:
        headers = {"Accept": "text/event-stream", **({"Last-Event-ID": self._place} if self._place else {})}
        query, opened = {"topic": self.topics}, float("inf")
        self._fruitless += 1
        try:
            with self._connection.stream(f"{self._path}/events", query, headers, QUIET_SECONDS) as answer:
                opened = time.monotonic()
                if not answer.headers.get("Content-Type", "").startswith("text/event-stream"):
                    self._ask_for(ASK_SECONDS)
                    return
                for kind, data in self._read(answer.iter_lines()):
                    if self._told.is_new(kind, data):
                        yield JobEvent(kind, data)
        except TooBusy as error:
            self._ask_for(error.retry_after or ASK_SECONDS)
        except Unreachable:
            if self._heard < opened < float("inf"):  # something on the way holds events back
                self._ask_for(HELD_BACK_SECONDS)
            raise
        except Invalid:
            if not self._place:
                raise
            self._place = ""  # of a service of another version: all is heard again, and what was told is left out
        finally:
            if self._fruitless >= FRUITLESS:
                self._ask_for(ASK_SECONDS)

    def _read(self, lines: Iterator[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        fields: dict[str, str] = {}
        for line in lines:
            self._heard = time.monotonic()
            if line:
                name, _, value = line.partition(":")
                fields[name] = value.removeprefix(" ")
                continue
            if "event" in fields and "data" in fields:
                self._fruitless = 0
                self._place = fields.get("id", self._place)
                yield fields["event"], json.loads(fields["data"])
            fields = {}
            if self._left() < NEAR_SECONDS:
                return

    # ── Without it ────────────────────────────────────────────────────────────────────────────────────────────────

    def _asked(self) -> Events:
        while self._must_ask() and self._left() > 0:
            for kind, data in self._look():
                self._heard = time.monotonic()
                if self._told.is_new(kind, data):
                    yield JobEvent(kind, data)
            time.sleep(min(self.every, self._left()))

    def _look(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """All that can be asked for, the job first: whatever belongs to an end that is seen was there before it."""
        job = self._connection.json("GET", self._path)
        has_ended, wanted = job["state"] in ENDED, self.topics or TOPICS
        states = self._items("events") if "state" in wanted else []
        last = [states.pop()] if states and has_ended and states[-1]["state"] in ENDED else []
        yield from (("state", item) for item in states)
        if "metrics" in wanted:
            yield from self._figures()
        if "log" in wanted:
            after = self._told.line
            while lines := self._items("logs", {"after": after}):
                yield from (("log", line) for line in lines)
                after = lines[-1]["id"]
        if "progress" in wanted:
            yield "progress", job["progress"]
        if "child" in wanted:
            yield from (("child", {name: child[name] for name in CHILD}) for child in self._items("children"))
        if has_ended:
            yield from (("state", item) for item in last)
            yield "end", {name: value for name, value in job.items() if name != "queue"}

    def _figures(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for row in self._items("attempts"):
            if row["resumed_from_step"] is not None:
                yield "started", {"attempt": row["number"], "step": row["resumed_from_step"]}
        said: dict[tuple[int, int], dict[str, Any]] = {}
        for series in self._items("metrics"):
            for point in series["points"]:
                said.setdefault((point["step"], point["epoch"]), {})[series["name"]] = point["value"]
        for (step, epoch), values in sorted(said.items()):
            yield "metrics", {"step": step, "epoch": epoch, "values": values}

    def _items(self, what: str, query: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        return list(self._connection.json("GET", f"{self._path}/{what}", params=query)["items"])
