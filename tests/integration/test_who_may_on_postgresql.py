"""What is promised of projects, tokens and the audit trail when many act at once, on real PostgreSQL and on SQLite."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from sqlalchemy import insert, select, text, update
from sqlalchemy.exc import DBAPIError

from services import audit, jobs, projects, tokens, views
from services.audit import Act
from services.claims import NewJob
from services.database import Database, now_ms
from services.errors import Conflict, NotFound, ServiceError
from services.migration import config, migrate
from services.projects import NewProject
from services.tables import Dataset, Token
from services.tokens import NewToken, Principal
from services.views import JobFilter
from tests.support.at_once import at_once
from tests.support.clocked import DATASET
from tests.support.databases import migrated_url

ADA, BOB = Principal("ada", "researcher"), Principal("bob", "researcher")
ROOT = Principal("root", "admin")


@pytest.fixture(params=["postgresql", "sqlite"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    made = Database(migrated_url(request, tmp_path))
    with made.write() as session:
        session.execute(insert(Dataset).values(**DATASET))
    yield made
    made.close()


def told_at_once(functions: Sequence[Callable[[], Any]]) -> list[Any]:
    """What each gave, or the error that it raised; all start at the same moment."""

    def told(function: Callable[[], Any]) -> Any:
        try:
            return function()
        except ServiceError as error:
            return error

    return at_once([partial(told, function) for function in functions])


def submit(database: Database) -> None:
    jobs.submit(database, NewJob("train", "n", {}, "d", "ada"), also=audit.noted(database, Act(ADA, "job.submit")))


def test_submissions_at_once_make_one_chain_without_gaps(database: Database) -> None:
    def several() -> None:
        for _ in range(5):
            submit(database)

    assert told_at_once([several] * 6) == [None] * 6
    found = audit.verify(database)
    assert (found.broken, found.head.number) == (None, 30)
    assert len(views.list_jobs(database, ADA, JobFilter(), limit=100).items) == 30


def test_a_change_that_is_taken_back_takes_its_entry_along(database: Database) -> None:
    def breaks(session: Any, subject: str) -> None:
        audit.append(database, session, Act(ADA, "job.submit", subject))
        raise Conflict("no")

    with pytest.raises(Conflict):
        jobs.submit(database, NewJob("train", "n", {}, "d", "ada"), also=breaks)
    submit(database)
    assert audit.verify(database).head.number == 1


def test_the_database_keeps_every_entry(database: Database) -> None:
    submit(database)
    statements = ["UPDATE audit SET detail = '{}'", "DELETE FROM audit"]
    if not database.is_sqlite:
        statements.append("TRUNCATE audit")
    for statement in statements:
        with pytest.raises(DBAPIError, match="only ever added"), database.write() as session:
            session.execute(text(statement))
    assert audit.verify(database).head.number == 1


def test_two_admins_who_leave_at_once_leave_one(database: Database) -> None:
    for number in range(5):
        project = f"study-{number}"
        projects.create(database, ADA, NewProject(project, "x"))
        projects.put_member(database, ADA, project, "bob", "admin")
        told = told_at_once(
            [
                partial(projects.drop_member, database, ADA, project, "ada"),
                partial(projects.drop_member, database, BOB, project, "bob"),
            ]
        )
        assert [type(each) for each in told if each is not None] == [Conflict], told
        left = projects.list_members(database, ROOT, project)
        assert [row["role"] for row in left] == ["admin"]


def test_a_project_goes_only_while_nothing_is_put_into_it(database: Database) -> None:
    for number in range(10):
        project = f"study-{number}"
        projects.create(database, ADA, NewProject(project, "x"))
        noting = projects.noted_in(database, Act(ADA, "job.submit", project=project))
        new = NewJob("train", "n", {}, "d", "ada", project=project)
        submitted, removed = told_at_once(
            [
                partial(jobs.submit, database, new, also=noting),
                partial(projects.remove, database, ADA, project),
            ]
        )
        assert isinstance(submitted, NotFound) != isinstance(removed, Conflict), (submitted, removed)
    assert audit.verify(database).broken is None


def test_a_project_is_made_once_by_whoever_is_first(database: Database) -> None:
    told = told_at_once([partial(projects.create, database, who, NewProject("same", "x")) for who in (ADA, BOB)])
    assert sum(isinstance(each, Conflict) for each in told) == 1
    (member,) = projects.list_members(database, ROOT, "same")
    assert audit.list_entries(database, action="project.create")[0][0]["user"] == member["user"]


def test_members_see_on_this_database_what_their_projects_hold(database: Database) -> None:
    projects.create(database, ADA, NewProject("derma", "x"))
    shared, _ = jobs.submit(database, NewJob("train", "n", {}, "d", "ada", project="derma"))
    own, _ = jobs.submit(database, NewJob("train", "n", {}, "d", "ada"))

    def seen(who: Principal) -> list[str]:
        return [item["id"] for item in views.list_jobs(database, who, JobFilter()).items]

    assert (seen(ADA), seen(BOB), seen(ROOT)) == ([own, shared], [], [own, shared])
    projects.put_member(database, ADA, "derma", "bob", "viewer")
    assert seen(BOB) == [shared]


def test_a_token_expires_by_the_clock_of_the_database(database: Database) -> None:
    with database.read() as session:
        now = session.scalars(select(now_ms())).one()
    _, secret = tokens.issue(database, ROOT, NewToken("t", "ada", expires_at=now + 3_600_000))
    assert tokens.verify(database, secret) is not None
    with database.write() as session:
        session.execute(update(Token).values(expires_at=now_ms()))
    assert tokens.verify(database, secret) is None


def test_what_was_there_before_projects_belongs_to_who_made_it_and_data_sets_to_all(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    for url in (f"sqlite:///{tmp_path / 'old.db'}", request.getfixturevalue("postgres_url")):
        migrate(url, "0007")
        database = Database(url)
        with database.write() as session:
            known = (
                'id, name, version, state, format, digest, synthetic, classes, images, "groups", group_unit, '
                "class_counts, columns, locked, findings, checks, files, created_by, created_at"
            )
            values = (
                "'d', 'lesions', 1, 'ready', 'ham10000', '0', :no, '[]', 1, 1, 'lesion', '[]', '[]', '{}', '[]', '{}', "
                "'{}', 'ada', 7"
            )
            session.execute(text(f"INSERT INTO datasets ({known}) VALUES ({values})"), {"no": False})  # noqa: S608
            session.execute(
                text(
                    "INSERT INTO jobs (id, kind, name, state, dataset_id, spec, resource_class, priority, attempt, "
                    "losses, max_attempts, wants_worker, on_failure, not_before, cancel_requested, pause_requested, "
                    "progress, summary, created_by, created_at) VALUES ('j', 'train', 'n', 'queued', "
                    "'d', '{}', 'any', 0, 0, 0, 3, :no, 'finish_rest', 0, :no, :no, '{}', '{}', 'ada', 0)"
                ),
                {"no": False},
            )
            session.execute(
                text(
                    'INSERT INTO tokens (id, name, "user", role, digest, created_at) '
                    "VALUES ('t', 'old', 'ada', 'researcher', :digest, 0)"
                ),
                {"digest": tokens.digest_of("bgp_old")},
            )
        migrate(url)
        principal = tokens.verify(database, "bgp_old")
        assert principal == Principal("ada", "researcher", token_id="t")
        assert [item["project"] for item in views.list_jobs(database, principal, JobFilter()).items] == ["~ada"]
        assert views.list_jobs(database, BOB, JobFilter()).items == []
        assert views.find_dataset(database, BOB, "lesions").project == "shared"
        command.downgrade(config(url), "0007")
        database.close()
