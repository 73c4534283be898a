"""The audit trail: nothing is changed without its entry, and no entry can be changed without it showing."""

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import delete, insert, select, text, update
from sqlalchemy.exc import DBAPIError

from services import audit, jobs, projects, tokens
from services.audit import Act, Head
from services.claims import NewJob
from services.database import Database
from services.errors import Conflict
from services.projects import NewProject
from services.tables import AuditEntry, Dataset, Job
from services.tokens import NewToken, Principal
from tests.support.clocked import DATASET
from tests.support.databases import make_schema

ADA = Principal("ada", "admin")


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database as migrations make it, with triggers, and with a data set."""
    path = tmp_path_factory.mktemp("migrated") / "test.db"
    made = Database(f"sqlite:///{path}")
    make_schema(made.url)
    with made.write() as session:
        session.execute(insert(Dataset).values(**DATASET))
    made.close()
    return path


@pytest.fixture
def database(migrated: Path, tmp_path: Path) -> Iterator[Database]:
    made = Database(f"sqlite:///{shutil.copy(migrated, tmp_path)}")
    yield made
    made.close()


def write(database: Database, count: int = 3) -> None:
    for number in range(count):
        audit.note(database, Act(ADA, "test", str(number), "derma", {"n": number, "text": "ä"}))


def without_triggers(database: Database) -> None:
    """As somebody can who owns the database."""
    with database.write() as session:
        names = session.scalars(text("SELECT name FROM sqlite_master WHERE type = 'trigger'")).all()
        assert sorted(names) == ["audit_delete", "audit_update"]
        for name in names:
            session.execute(text(f"DROP TRIGGER {name}"))


def test_a_trail_that_nobody_touched_holds(database: Database) -> None:
    assert audit.verify(database).head == Head(0, audit.START)
    write(database)
    found = audit.verify(database)
    assert (found.broken, found.head.number) == (None, 3)
    assert audit.verify(database, kept=found.head).broken is None


def test_a_long_trail_is_read_in_parts(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "AT_ONCE", 2)
    write(database, 4)
    assert audit.verify(database).head.number == 4
    write(database, 1)
    assert audit.verify(database).head.number == 5


def test_a_trail_is_verified_part_by_part_as_it_is_in_one(database: Database) -> None:
    write(database, 5)
    first = audit.verify(database, most=2)
    assert (first.head.number, first.broken, first.is_whole) == (2, None, False)
    assert audit.verify(database, begin=first.head, most=3) == audit.verify(database)
    assert audit.verify(database, most=5).is_whole


def test_a_part_does_not_follow_another_that_has_changed_since(database: Database) -> None:
    write(database, 3)
    head = audit.verify(database, most=2).head
    other = audit.verify(database, begin=Head(2, "0" * 64))
    assert (other.broken, other.why) == (2, "is another one than when it was read")
    without_triggers(database)
    with database.write() as session:
        session.execute(delete(AuditEntry).where(AuditEntry.number > 1))
    cut = audit.verify(database, begin=head)
    assert (cut.broken, cut.why) == (2, "is missing")


@pytest.mark.parametrize("statement", [update(AuditEntry).values(user="bob"), delete(AuditEntry)])
def test_the_database_refuses_to_change_or_remove_entries(database: Database, statement: object) -> None:
    write(database)
    with pytest.raises(DBAPIError, match="only ever added"), database.write() as session:
        session.execute(statement)  # type: ignore[call-overload]
    assert audit.verify(database).head.number == 3


@pytest.mark.parametrize("column", [name for name in audit.CONTENT if name != "number"])
def test_every_field_is_under_the_digest(database: Database, column: str) -> None:
    write(database)
    without_triggers(database)
    value = 7 if column == "at" else "x"
    with database.write() as session:
        session.execute(update(AuditEntry).where(AuditEntry.number == 2).values({column: value}))
    assert audit.verify(database).broken == 2


def test_an_entry_that_is_missing_shows(database: Database) -> None:
    write(database)
    without_triggers(database)
    with database.write() as session:
        session.execute(delete(AuditEntry).where(AuditEntry.number == 2))
    assert audit.verify(database).broken == 2


def test_an_end_that_was_cut_shows_against_a_head_that_was_kept(database: Database) -> None:
    write(database)
    head = audit.verify(database).head
    without_triggers(database)
    with database.write() as session:
        session.execute(delete(AuditEntry).where(AuditEntry.number == 3))
    assert audit.verify(database).broken is None  # the chain alone can't tell
    assert audit.verify(database, kept=head).broken == 3


def test_a_trail_that_was_written_anew_shows_against_a_head_that_was_kept(database: Database) -> None:
    write(database)
    head = audit.verify(database).head
    without_triggers(database)
    with database.write() as session:
        session.execute(delete(AuditEntry))
    write(database, 5)
    assert audit.verify(database).broken is None
    assert audit.verify(database, kept=head).broken == 3


def test_a_head_is_what_verify_prints(database: Database) -> None:
    write(database)
    head = audit.verify(database).head
    assert Head.parse(str(head)) == head
    for wrong in ("", "3", "x:" + "0" * 64, "3:abc"):
        with pytest.raises(ValueError, match="no head"):
            Head.parse(wrong)


def test_a_change_that_fails_leaves_no_entry_and_an_entry_that_fails_no_change(database: Database) -> None:
    new = NewJob("train", "n", {}, "d", "ada")

    def fails(session: object, subject: str) -> None:
        raise RuntimeError("no entry")

    with pytest.raises(RuntimeError):
        jobs.submit(database, new, also=fails)
    with database.read() as session:
        assert session.scalars(select(Job)).all() == []
    job, _ = jobs.submit(database, new, also=audit.noted(database, Act(ADA, "job.submit")))
    jobs.cancel(database, job)
    with pytest.raises(Conflict):
        jobs.pause(database, job, audit.noted(database, Act(ADA, "job.pause")))
    items, _ = audit.list_entries(database)
    assert [(item["action"], item["subject"]) for item in items] == [("job.submit", job)]


def test_tokens_projects_and_members_leave_their_entries(database: Database) -> None:
    token, secret = tokens.issue(database, ADA, NewToken("t", "bob"), audit.noted(database, Act(ADA, "token.create")))
    tokens.revoke(database, token, also=audit.noted(database, Act(ADA, "token.revoke")))
    projects.create(database, ADA, NewProject("derma", "x"))
    projects.put_member(database, ADA, "derma", "bob", "viewer")
    projects.drop_member(database, ADA, "derma", "bob")
    projects.remove(database, ADA, "derma")
    items, _ = audit.list_entries(database)
    told = [(item["action"], item["subject"], item["project"]) for item in reversed(items)]
    assert told == [
        ("token.create", token, None),
        ("token.revoke", token, None),
        ("project.create", "derma", "derma"),
        ("member.put", "bob", "derma"),
        ("member.drop", "bob", "derma"),
        ("project.remove", "derma", "derma"),
    ]
    assert secret not in str(items)
    assert audit.verify(database).broken is None


def test_many_at_once_make_one_chain(database: Database) -> None:
    threads = [threading.Thread(target=write, args=(database, 5)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = audit.verify(database)
    assert (found.broken, found.head.number) == (None, 20)


def test_entries_are_listed_newest_first_in_pages(database: Database) -> None:
    write(database, 5)
    items, before = audit.list_entries(database, limit=2)
    assert ([item["number"] for item in items], before) == ([5, 4], 4)
    items, before = audit.list_entries(database, limit=3, before=before)
    assert ([item["number"] for item in items], before) == ([3, 2, 1], None)
    assert items[0]["detail"] == {"n": 2, "text": "ä"}
    assert audit.list_entries(database, user="bob") == ([], None)
    assert len(audit.list_entries(database, subject="1", project="derma", action="test")[0]) == 1


def test_a_detail_that_is_too_long_is_cut(database: Database) -> None:
    audit.note(database, Act(ADA, "test", detail={"text": "x" * 100_000}))
    (entry,), _ = audit.list_entries(database)
    assert len(entry["detail"]["cut"]) < 2000
