"""Every page of every list is read along an index, in its order, on both databases: no table is read whole, nothing is
sorted. That is what makes the last page as fast as the first; a test never asserts a time."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import event, insert, text

from services import listing
from services.database import Database
from services.ids import new_id
from services.listing import JobFilter
from services.tables import Dataset, Job
from tests.support.databases import make_schema, migrated_database

JOBS = 20_000  # on PostgreSQL, which takes another way through a small table
MIDDLE = "80000000-0000-7000-8000-000000000000"
FILTERS = {
    "none": JobFilter(),
    "state": JobFilter(state="failed"),
    "kind": JobFilter(kind="predict"),
    "owner": JobFilter(created_by="ada"),
    "data set": JobFilter(dataset="lesions@1"),
    "a data set's versions": JobFilter(dataset="lesions"),
    "words": JobFilter(q="no such name"),
    "state and words": JobFilter(state="failed", q="no such name"),
    "owner and words": JobFilter(created_by="ada", q="no such name"),
}


def fill(database: Database) -> None:
    """Two versions of a data set, and on PostgreSQL many jobs, a tenth of which have no parent."""
    dataset = {
        "name": "lesions", "format": "csv", "digest": "0" * 64, "synthetic": True, "classes": [], "images": 1,
        "groups": 1, "group_unit": "lesion", "class_counts": [], "findings": [], "files": {}, "created_by": "ada",
        "created_at": 0,
    }  # fmt: skip
    versions = [{**dataset, "id": new_id(), "version": version} for version in (1, 2)]
    job: dict[str, Any] = {
        "kind": "train", "name": "train bgpanet on lesions", "state": "succeeded", "dataset_id": versions[0]["id"],
        "spec": {}, "resource_class": "any", "priority": 0, "attempt": 0, "losses": 0, "max_attempts": 3,
        "wants_worker": False, "on_failure": "finish_rest", "not_before": 0, "cancel_requested": False,
        "pause_requested": False, "progress": {}, "summary": {}, "created_by": "ada", "created_at": 0,
    }  # fmt: skip
    with database.write() as session:
        session.execute(insert(Dataset), versions)
        session.execute(insert(Job).values(**job, id="00000000-0000-7000-8000-000000000000"))
        if database.is_sqlite:
            return
        columns = [column.name for column in Job.__table__.columns]
        varied = {
            "id": "lpad(to_hex(n * (4294967295 / :jobs)), 8, '0') || '-0000-7000-8000-000000000000'",
            "name": "name || ' ' || n",
            "state": "CASE WHEN n % 20 = 0 THEN 'failed' ELSE 'succeeded' END",
            "kind": "CASE WHEN n % 30 = 0 THEN 'predict' ELSE 'train' END",
            "created_by": "CASE WHEN n % 3 = 0 THEN 'ada' ELSE 'bob' END",
            "dataset_id": "CASE WHEN n % 2 = 0 THEN :second ELSE dataset_id END",
            "parent_id": "CASE WHEN n % 10 = 0 THEN NULL ELSE id END",
        }
        values = ", ".join(varied.get(column, column) for column in columns)
        fill = f"INSERT INTO jobs ({', '.join(columns)}) SELECT {values} FROM jobs, generate_series(1, :jobs) AS n"  # noqa: S608
        session.execute(text(fill), {"jobs": JOBS, "second": versions[1]["id"]})
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE jobs"))


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('lists') / 'bgpanet.db'}"
        make_schema(url)
    else:
        url = migrated_database(request.getfixturevalue("_postgres"))
    made = Database(url)
    fill(made)
    yield made
    made.close()


def plans(database: Database, wanted: JobFilter, cursor: str | None) -> list[str]:
    """How the database reads the ids of a page: the plan of every statement on jobs."""
    statements: list[tuple[str, Any]] = []

    def note(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if "FROM jobs" in statement:
            statements.append((statement, parameters))

    event.listen(database.engine, "before_cursor_execute", note)
    with database.read() as session:
        listing.job_ids(session, None, wanted, cursor, 51)
        event.remove(database.engine, "before_cursor_execute", note)
        explain = "EXPLAIN QUERY PLAN " if database.is_sqlite else "EXPLAIN "
        connection = session.connection()
        return [
            "\n".join(str(row[-1]) for row in connection.exec_driver_sql(explain + statement, parameters))
            for statement, parameters in statements
        ]


@pytest.mark.parametrize("cursor", [None, MIDDLE], ids=["first page", "later page"])
@pytest.mark.parametrize("name", FILTERS)
def test_a_page_is_read_along_an_index(database: Database, name: str, cursor: str | None) -> None:
    wanted = FILTERS[name]
    found = plans(database, wanted, cursor)
    assert found
    for plan in found:
        if database.is_sqlite:
            assert "INDEX ix_jobs_top" in plan, plan
            assert "SCAN jobs\n" not in f"{plan}\n", plan
            assert wanted.dataset == "lesions" or "TEMP B-TREE" not in plan, plan  # of two pages, nothing else
            assert wanted.q is None or "COVERING INDEX" in plan, plan
        else:
            assert "ix_jobs_top" in plan, plan
            assert "Seq Scan on jobs" not in plan, plan
            # Of two pages; and of the next to nothing that PostgreSQL expects of this search.
            assert wanted.dataset == "lesions" or wanted.q is not None or "Sort" not in plan, plan
            assert wanted.q is None or "Index Only Scan" in plan, plan


@pytest.mark.parametrize(
    ("index", "statement"),
    [
        ("ix_jobs_children", "SELECT id FROM jobs WHERE parent_id = 'x' ORDER BY position"),
        ("ix_jobs_superseded", "SELECT id FROM jobs WHERE superseded_by = 'x'"),
        ("ix_jobs_worker", "SELECT id FROM jobs WHERE worker IN ('x', 'y')"),
        ("ix_jobs_ended", "SELECT id FROM jobs WHERE state = 'succeeded' ORDER BY finished_at DESC LIMIT 300"),
    ],
)
def test_what_is_told_of_a_job_is_found_along_an_index(database: Database, index: str, statement: str) -> None:
    with database.read() as session:
        explain = "EXPLAIN QUERY PLAN " if database.is_sqlite else "EXPLAIN "
        plan = "\n".join(str(row[-1]) for row in session.connection().exec_driver_sql(explain + statement))
    assert index in plan, plan
    assert "Sort" not in plan, plan
    assert "TEMP B-TREE" not in plan, plan
