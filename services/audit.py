"""The audit trail: who did what, or was refused, chained so that a change of what was written shows.

An entry is written in the transaction of what it tells of, as its last statement: there is no change without its entry,
and no entry without its change. Each has the digest of its content and of the digest before it. Numbers have no gaps,
so transactions that write one wait for each other from there to their commit and no longer.

The database refuses to change or remove entries (triggers). Whoever may drop triggers can still write the whole chain
anew, or cut off its end; that shows against a `Head` that was kept elsewhere.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from services.database import Also, Database, now_ms
from services.tables import AuditEntry
from services.tokens import Principal

Outcome = Literal["done", "refused"]
START = "0" * 64  # the digest before the first entry
AT_ONCE = 1000
TOLD_CHARACTERS = 2000  # of an entry's detail


@dataclass(frozen=True)
class Act:
    """What somebody does. action: `job.submit`, `token.revoke`, …; subject: id of what it is done to."""

    principal: Principal
    action: str
    subject: str = ""
    project: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)
    outcome: Outcome = "done"


@dataclass(frozen=True)
class Head:
    """The last entry of a trail: its number and digest. Kept elsewhere, it shows whether the trail was cut."""

    number: int
    digest: str

    def __str__(self) -> str:
        return f"{self.number}:{self.digest}"

    @classmethod
    def parse(cls, text: str) -> "Head":
        """The head that `str` gave. Raises ValueError."""
        number, _, digest = text.partition(":")
        if not (number.isascii() and number.isdigit() and len(digest) == 64):
            raise ValueError(
                f"{text!r} is no head of a trail; it is NUMBER:DIGEST, as `bgpanet audit verify` prints it"
            )
        return cls(int(number), digest)


@dataclass(frozen=True)
class Verdict:
    """Whether a trail holds. broken: number of the first entry that does not; why: what is wrong with it.

    head: the last entry that holds; is_whole: whether no entry follows that was not looked at.
    """

    head: Head
    broken: int | None = None
    why: str = ""
    is_whole: bool = True


# ── Writing ───────────────────────────────────────────────────────────────────────────────────────────────────────


def append(database: Database, session: Session, act: Act) -> None:
    """Adds an entry as the last statement of a transaction: nothing that could wait may come after it."""
    database.one_at_a_time(session, "audit")
    last = session.execute(
        select(AuditEntry.number, AuditEntry.digest).order_by(AuditEntry.number.desc()).limit(1)
    ).first()
    number, before = (0, START) if last is None else last
    values: dict[str, Any] = {
        "number": number + 1,
        "at": session.scalar(select(now_ms())),
        "user": act.principal.user,
        "token_id": act.principal.token_id,
        "action": act.action,
        "subject": act.subject[:400],
        "project": act.project,
        "outcome": act.outcome,
        "detail": _plain(act.detail),
    }
    session.execute(insert(AuditEntry).values(**values, digest=_digest(before, values)))


def noted(database: Database, act: Act) -> Also:
    """`append` for a change that finds the subject's id itself: what it is told takes the act's place."""

    def also(session: Session, subject: str) -> None:
        append(database, session, replace(act, subject=subject))

    return also


def note(database: Database, act: Act) -> None:
    """Adds an entry of what changes nothing: a refusal, a download."""
    with database.write() as session:
        append(database, session, act)


def _plain(detail: Mapping[str, Any]) -> str:
    text = json.dumps(dict(detail), sort_keys=True, separators=(",", ":"), default=str)
    return text if len(text) <= TOLD_CHARACTERS else json.dumps({"cut": text[: TOLD_CHARACTERS // 2]})


def _digest(before: str, values: Mapping[str, Any]) -> str:
    told = json.dumps([before, *(values[name] for name in CONTENT)], separators=(",", ":"))
    return hashlib.sha256(told.encode()).hexdigest()


CONTENT = ("number", "at", "user", "token_id", "action", "subject", "project", "outcome", "detail")
"""What of an entry its digest is of, in this order, after the digest before it."""


# ── Reading ───────────────────────────────────────────────────────────────────────────────────────────────────────


def verify(database: Database, kept: Head | None = None, begin: Head | None = None, most: int | None = None) -> Verdict:
    """Reads the trail, oldest first. kept: a head that it had once.

    It is broken where an entry is not what was written, is missing, or where the kept head is not in it.

    begin: the head of a part that was found to hold, whose entries are not read again; most: how many entries are
    read at most. One after the other, such parts tell the same as one reading of all.
    """
    head = begin = begin or Head(0, START)
    if begin.number and (why := _has_changed(database, begin, "when it was read")):
        return Verdict(Head(0, START), begin.number, why)
    # One that is kept from before is not met on the way; the digests from it to where this begins follow from its own.
    before = kept if kept is not None and 0 < kept.number <= begin.number else None
    if before and (why := _has_changed(database, before, "the head that was kept")):
        return Verdict(Head(0, START), before.number, why)
    for row in _entries(database, begin.number):
        if most is not None and head.number - begin.number >= most:
            return Verdict(head, is_whole=False)
        values = {name: getattr(row, name) for name in CONTENT}
        if row.number != head.number + 1:
            return Verdict(head, head.number + 1, "is missing")
        if row.digest != _digest(head.digest, values):
            return Verdict(head, row.number, "is not what was written, or what comes before it is not")
        head = Head(row.number, row.digest)
        if kept is not None and kept.number == head.number and kept.digest != head.digest:
            return Verdict(head, row.number, "is another one than the head that was kept")
    if kept is not None and kept.number > head.number:
        return Verdict(head, head.number + 1, f"is missing, and so are all up to {kept.number}, the head that was kept")
    return Verdict(head)


def _has_changed(database: Database, head: Head, what: str) -> str:
    """What is wrong with the entry of a head, by the digest that it has now; empty: nothing. what: the head is."""
    with database.read() as session:
        digest = session.scalar(select(AuditEntry.digest).where(AuditEntry.number == head.number))
    if digest is None:
        return "is missing"
    return "" if digest == head.digest else f"is another one than {what}"


def _entries(database: Database, after: int) -> Iterator[AuditEntry]:
    while True:
        query = select(AuditEntry).where(AuditEntry.number > after).order_by(AuditEntry.number).limit(AT_ONCE)
        with database.read() as session:
            rows = session.scalars(query).all()
        yield from rows
        if len(rows) < AT_ONCE:
            return
        after = rows[-1].number


def list_entries(
    database: Database,
    *,
    user: str | None = None,
    action: str | None = None,
    subject: str | None = None,
    project: str | None = None,
    since: int | None = None,
    until: int | None = None,
    before: int | None = None,
    limit: int = 50,
) -> tuple[list[dict[str, Any]], int | None]:
    """Entries, newest first, and the `before` of those that follow; None at the end. Times are milliseconds.

    since: only those of this time and later; until: only earlier ones.
    """
    wanted = {"user": user, "action": action, "subject": subject, "project": project}
    query = select(AuditEntry).order_by(AuditEntry.number.desc()).limit(limit + 1)
    for name, value in wanted.items():
        if value is not None:
            query = query.where(getattr(AuditEntry, name) == value)
    if since is not None:
        query = query.where(AuditEntry.at >= since)
    if until is not None:
        query = query.where(AuditEntry.at < until)
    if before is not None:
        query = query.where(AuditEntry.number < before)
    with database.read() as session:
        rows = session.scalars(query).all()
    items = [
        {**{name: getattr(row, name) for name in (*CONTENT, "digest")}, "detail": json.loads(row.detail)}
        for row in rows[:limit]
    ]
    return items, rows[limit - 1].number if len(rows) > limit else None
