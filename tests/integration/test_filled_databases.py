"""Migrations on databases with rows in every table, forward and back, on SQLite and PostgreSQL."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import JSON, Boolean, Column, Float, Integer, MetaData, Table, inspect

from services.database import Database
from services.migration import known, migrate, revision_of, take_back
from services.tables import Base

ROWS = 3
LADDER = known()
NO_DATA_SET = {"id": "no data set", "dataset_id": None, "parent_id": None, "idempotency_key": None}
ORDINARY: dict[str, dict[str, Any]] = {
    "datasets": {"version": 1},
    "tokens": {"scopes": ["read", "submit", "manage"], "expires_at": None},
}
"""What earlier versions know how to say; the rest has a test of its own."""
Told = dict[str, dict[Any, dict[str, Any]]]
"""Table -> primary key -> column -> value."""


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """Empty, and without tables."""
    new = f"sqlite:///{tmp_path / 'new.db'}"
    made = Database(new if request.param == "sqlite" else request.getfixturevalue("postgres_url"))
    yield made
    made.close()


def tables(database: Database) -> list[Table]:
    """Those that the database has, what is pointed to first."""
    found = MetaData()
    found.reflect(database.engine)
    return [table for table in found.sorted_tables if table.name != "alembic_version"]


def fill(database: Database) -> None:
    """`ROWS` rows into every table; of what may be empty the first one is, but no job is without a data set."""
    with database.write() as session:
        for table in tables(database):
            session.execute(table.insert(), [row(table, number) for number in range(ROWS)])


def row(table: Table, number: int) -> dict[str, Any]:
    return {
        column.name: None if column.nullable and number == 0 and column.name != "dataset_id" else value(column, number)
        for column in table.columns
    } | ORDINARY.get(table.name, {})


def value(column: Column[Any], number: int) -> Any:
    """Another one for each row. What points to another row points to that of the same number, but for jobs of a
    family, which point to the one before."""
    if column.foreign_keys:
        (key,) = column.foreign_keys
        return value(key.column, number - 1 if key.column.table is column.table else number)
    if isinstance(column.type, Boolean):
        return number % 2 == 0
    if isinstance(column.type, JSON):
        return [number, {"of": column.name}]
    if isinstance(column.type, Float):
        return number + 0.1
    if isinstance(column.type, Integer):
        return number + 1
    return f"{number} {column.name}"


def content(database: Database) -> Told:
    with database.read() as session:
        return {
            table.name: {
                tuple(found[key.name] for key in table.primary_key): dict(found)
                for found in session.execute(table.select()).mappings()
            }
            for table in tables(database)
        }


def schema(database: Database) -> dict[str, Any]:
    """Columns, keys and indexes of every table, without the order in which they came."""
    asked = inspect(database.engine)
    return {
        name: {
            "columns": {(c["name"], str(c["type"]), c["nullable"], c["default"]) for c in asked.get_columns(name)},
            "key": asked.get_pk_constraint(name)["constrained_columns"],
            "points to": sorted(
                (f["constrained_columns"], f["referred_table"], f["referred_columns"])
                for f in asked.get_foreign_keys(name)
            ),
            "once": sorted(sorted(u["column_names"]) for u in asked.get_unique_constraints(name)),
            "indexes": sorted((str(i["name"]), str(i["column_names"])) for i in asked.get_indexes(name)),
        }
        for name in asked.get_table_names()
    }


def lost(before: Told, after: Told) -> list[str]:
    """What both schemas have a place for, and what is no longer there or is another value."""
    return [
        f"{name} {key}: {[column for column in kept if kept[column] != old[column]]}"
        for name, rows in before.items()
        if name in after
        for key, old in rows.items()
        if (kept := {column: v for column, v in after[name].get(key, {}).items() if column in old})
        != {column: old[column] for column in kept}
        or not kept
    ]


def test_every_step_back_and_forward_again_keeps_all_that_both_versions_know(database: Database) -> None:
    schemas = {}
    for revision in LADDER:
        migrate(database.url, revision)
        schemas[revision] = schema(database)
    fill(database)
    assert {name: len(rows) for name, rows in content(database).items()} == dict.fromkeys(Base.metadata.tables, ROWS)
    for older in reversed(LADDER[:-1]):
        before = content(database)
        take_back(database.url, older)
        assert lost(before, content(database)) == [], f"back to {older}"
        assert schema(database) == schemas[older], f"back to {older}"
    for newer in LADDER[1:]:
        before = content(database)
        migrate(database.url, newer)
        assert lost(before, content(database)) == [], f"forward to {newer}"
    assert all(webhook["active"] for webhook in content(database)["webhooks"].values()), "as before it could be off"
    with database.engine.connect() as connection:
        compared = MigrationContext.configure(connection, opts={"compare_type": True})
        assert list(compare_metadata(compared, Base.metadata)) == []


def test_what_an_earlier_schema_has_no_place_for_stands_in_nobody_s_way(database: Database) -> None:
    migrate(database.url)
    fill(database)
    whole = content(database)
    with database.write() as session:
        for table in tables(database):
            if table.name == "datasets":  # another version; the same name of other projects; one that was never ready
                one = next(iter(whole["datasets"].values()))
                session.execute(table.insert(), {**one, "id": "v2", "version": 2, "project": "shared"})
                for project in ("shared", "~ada", "~bob"):
                    named = {"id": f"of {project}", "name": "same", "version": 1, "project": project}
                    session.execute(table.insert(), {**one, **named})
                session.execute(table.insert(), [{**one, "id": n, "name": "x", "version": None} for n in "pq"])
            elif table.name == "tokens":
                one = {**next(iter(whole["tokens"].values())), "revoked_at": None, "expires_at": None}
                everything, read = ["read", "submit", "manage"], ["read"]
                session.execute(table.insert(), {**one, "id": "full", "digest": "f", "scopes": everything})
                session.execute(table.insert(), {**one, "id": "reads", "digest": "r", "scopes": read})
                ends = {"id": "ends", "digest": "e", "scopes": everything, "expires_at": 2}
                session.execute(table.insert(), {**one, **ends})
            elif table.name == "jobs":  # one that needs no data set, of which other tables tell, too
                session.execute(table.insert(), {**row(table, 2), **NO_DATA_SET})
            elif any(key.column.table.name == "jobs" for key in table.foreign_keys):
                free = {"id": ROWS + 1} if "id" in table.columns else {}
                session.execute(table.insert(), {**row(table, 2), "job_id": "no data set", **free})
    take_back(database.url, LADDER[0])
    first = content(database)
    assert first["jobs"].keys() == whole["jobs"].keys()
    for name in ("attempts", "transitions", "metrics", "log_lines", "checkpoints", "artifacts"):
        assert len(first[name]) == ROWS
    names = {key: kept["name"] for (key,), kept in first["datasets"].items()}
    assert names.keys() >= {"v2", "p", "q", "of shared", "of ~ada", "of ~bob"}
    assert len(set(names.values())) == len(names)
    assert names["of shared"] == "same"
    assert {names[key] for key in ("p", "q")} == {"x@p", "x@q"}
    assert {key for key in ("full", "reads", "ends") if first["tokens"][key,]["revoked_at"] is None} == {"full"}
    migrate(database.url)
    assert content(database)["datasets"].keys() == first["datasets"].keys()


def test_a_step_that_leads_nowhere_is_refused_before_anything_is_changed(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'new.db'}")
    with pytest.raises(ValueError, match="no tables yet"):
        take_back(database.url, LADDER[0])
    migrate(database.url, LADDER[2])
    for wrong in (LADDER[2], LADDER[3], "base", "10"):
        with pytest.raises(ValueError, match=f"no schema before {LADDER[2]}.*{LADDER[0]}, {LADDER[1]}$"):
            take_back(database.url, wrong)
    before = schema(database)
    with database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = 'of a later version'")
    migrate(database.url)  # an earlier version beside a newer schema starts, and changes nothing
    with pytest.raises(ValueError, match="a later version made"):
        take_back(database.url, LADDER[0])
    assert schema(database) == before
    assert revision_of(database.url) == "of a later version"
    database.close()
