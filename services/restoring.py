"""Restoring what `services.backups` wrote: into an empty database and an empty store, or not at all.

Files go first and may be sent in several goes; all tables appear in one transaction at the end. A backup of an earlier
version is restored into that version's tables, which are then brought to the present schema.
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import (
    JSON,
    BigInteger,
    Connection,
    Integer,
    MetaData,
    Table,
    bindparam,
    func,
    inspect,
    literal,
    select,
    text,
    update,
)

from services import migration
from services.artifacts import S3Store, sha256_of
from services.backups import FORMAT, ROWS_AT_ONCE, StoredObject, lines_of, named_by, objects_of
from services.context import Context
from services.errors import Conflict, Damaged, NotFound, StorageError


@dataclass(frozen=True)
class Restored:
    """What was restored from where."""

    snapshot: str
    rows: int
    objects: int
    sent: int
    dropped: int


def restore(context: Context, folder: Path, name: str | None = None) -> Restored:
    """Restores a snapshot; the newest whole one where none is named.

    Checkpoints whose files were missing from the backup are dropped: their jobs go on from an earlier one. Jobs that
    ran at the time go on as those of workers that are gone.

    Raises:
        NotFound: there is no such snapshot.
        Conflict: the database or the store is not empty, or the snapshot is of a version that is not known here.
        Damaged: the backup is not what it was when it was written; nothing was restored.
        StorageError, SQLAlchemyError, OSError: no table has a row; to begin again is safe.
    """
    snapshot = _find(folder, name)
    manifest = _checked(folder, snapshot)
    _refuse_unless_empty(context, manifest["revision"])
    if isinstance(context.store, S3Store):
        with suppress(StorageError):  # who may not make one has one; what is wrong else is told by the next step
            context.store.make_bucket()
    sent = _send(context, folder, snapshot)
    migration.migrate(context.settings.database_url, manifest["revision"])
    dropped = _load(context, snapshot, manifest)
    migration.migrate(context.settings.database_url)
    rows = sum(table["rows"] for table in manifest["tables"].values())
    return Restored(snapshot.name, rows - dropped, manifest["objects"]["number"], sent, dropped)


def snapshots(folder: Path) -> list[str]:
    """The whole snapshots of a backup, oldest first."""
    return sorted(path.parent.name for path in folder.glob("snapshots/*/manifest.json"))


# ── Before anything is changed ────────────────────────────────────────────────────────────────────────────────────


def _find(folder: Path, name: str | None) -> Path:
    whole = snapshots(folder)
    if not whole:
        raise NotFound(f"{folder} holds no whole backup; `bgpanet backup {folder}` makes one")
    if name is not None and name not in whole:
        raise NotFound(f"{folder} holds no whole snapshot {name!r}; it has: {', '.join(whole)}")
    return folder / "snapshots" / (name or whole[-1])


def _checked(folder: Path, snapshot: Path) -> dict[str, Any]:
    """The manifest of a snapshot all of whose files are there. Raises Damaged with everything that is wrong."""
    manifest: dict[str, Any] = json.loads((snapshot / "manifest.json").read_text(encoding="utf-8"))
    if manifest.get("format") != FORMAT:
        raise Conflict(f"{snapshot} is of format {manifest.get('format')}, and this version reads {FORMAT}")
    digests = {f"tables/{name}.jsonl.gz": table["sha256"] for name, table in manifest["tables"].items()}
    digests["objects.jsonl.gz"] = manifest["objects"]["sha256"]
    wrong = []
    for name, digest in digests.items():
        path = snapshot / name
        if not path.is_file():
            wrong.append(f"{path} is missing")
        elif sha256_of(path) != digest:
            wrong.append(f"{path} was changed or damaged")
    if not wrong:
        missing = set(manifest["missing"])
        for named in objects_of(snapshot):
            place = named.place(folder)
            if named.key not in missing and not (place.is_file() and place.stat().st_size == named.size):
                wrong.append(f"{place} ({named.key}) is missing or has another size")
    if wrong:
        more = f"\nand {len(wrong) - 20} more" if len(wrong) > 20 else ""
        raise Damaged("the backup is damaged; restore another snapshot:\n" + "\n".join(wrong[:20]) + more)
    return manifest


def _refuse_unless_empty(context: Context, revision: str) -> None:
    config = migration.config(context.settings.database_url)
    try:
        ScriptDirectory.from_config(config).get_revision(revision)
    except CommandError:
        raise Conflict(
            f"the backup has the schema {revision}, which this version does not know; update first"
        ) from None
    with context.database.engine.connect() as connection:
        present = MigrationContext.configure(connection).get_current_revision()
        if present not in (None, revision):
            raise Conflict(f"the database has the schema {present} and the backup {revision}; name one without tables")
        for table in inspect(connection).get_table_names():
            if table == "alembic_version":
                continue
            if present is None or connection.execute(text(f'SELECT 1 FROM "{table}" LIMIT 1')).first():  # noqa: S608
                raise Conflict(f"the database is not empty, it has a table {table}; restore into a new one")


# ── Files, then tables ────────────────────────────────────────────────────────────────────────────────────────────


def _send(context: Context, folder: Path, snapshot: Path) -> int:
    """Stores the files that are not there yet. Returns how many. Raises Conflict where the store has others."""
    wanted = {named.key: named for named in objects_of(snapshot)}
    there: set[str] = set()
    for page in context.store.pages(""):
        for file in page:
            if file.key not in wanted:
                raise Conflict(f"the artifact store is not empty, it has {file.key}; restore into an empty one")
            if file.size == wanted[file.key].size:
                there.add(file.key)
    sent = 0
    for named in wanted.values():
        if named.key not in there and _send_one(context, folder, named):
            sent += 1
    return sent


def _send_one(context: Context, folder: Path, named: StoredObject) -> bool:
    place = named.place(folder)
    if not place.exists():
        return False  # told in the manifest, else it would have been refused
    if sha256_of(place) != named.sha256:
        raise Damaged(f"{place} was changed or damaged; delete it, back up again, or restore another snapshot")
    context.store.put_file(named.key, place, named.sha256, named.media_type)
    return True


def _load(context: Context, snapshot: Path, manifest: dict[str, Any]) -> int:
    """Fills all tables in one transaction. Returns how many checkpoints had no files any more."""
    missing = set(manifest["missing"])
    dropped = 0
    with context.database.engine.begin() as connection:
        if not context.database.is_sqlite:
            connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = '10min'"))
        schema = MetaData()
        schema.reflect(connection)
        _refuse_other_columns(schema, snapshot, manifest)
        for table in schema.sorted_tables:
            if table.name in manifest["tables"]:
                dropped += _fill(connection, table, _rows(_file(snapshot, table.name)), missing)
                _number_on(connection, table)
    return dropped


def _refuse_other_columns(schema: MetaData, snapshot: Path, manifest: dict[str, Any]) -> None:
    """Raises Conflict where tables of the same revision have other columns: then it was not its migrations' alone."""
    wrong = []
    for name in manifest["tables"]:
        backed_up = set(next(lines_of(_file(snapshot, name))))
        there = {column.name for column in schema.tables[name].columns} if name in schema.tables else set()
        if backed_up != there:
            wrong.append(f"{name}: {', '.join(sorted(backed_up ^ there))}")
    if wrong:
        listed = "\n".join(wrong)
        raise Conflict(
            f"tables of revision {manifest['revision']} have other columns here than in the backup:\n{listed}"
        )


def _file(snapshot: Path, table: str) -> Path:
    return snapshot / "tables" / f"{table}.jsonl.gz"


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    lines = lines_of(path)
    names = next(lines)
    return (dict(zip(names, line, strict=True)) for line in lines)


def _fill(connection: Connection, table: Table, rows: Iterator[dict[str, Any]], missing: set[str]) -> int:
    """Rows that name others of their own table are told of them once all are there."""
    own = [key.parent.name for key in table.foreign_keys if key.column.table is table]
    keys = [column.name for column in table.primary_key.columns]
    for column in table.columns:
        if isinstance(column.type, JSON):
            column.type = type(column.type)(none_as_null=True)
    naming: list[dict[str, Any]] = []
    dropped = 0
    while batch := list(islice(rows, ROWS_AT_ONCE)):
        kept = []
        for row in batch:
            if table.name == "checkpoints" and missing.intersection(file.key for file in named_by(row)):
                dropped += 1
                continue
            if any(row[name] is not None for name in own):
                naming.append({f"b_{name}": row[name] for name in (*own, *keys)})
            kept.append({**row, **dict.fromkeys(own)})
        if kept:
            connection.execute(table.insert(), kept)
    if naming:
        this_row = [table.c[name] == bindparam(f"b_{name}") for name in keys]
        values: dict[str, Any] = {name: bindparam(f"b_{name}") for name in own}
        connection.execute(update(table).where(*this_row).values(**values), naming)
    return dropped


def _number_on(connection: Connection, table: Table) -> None:
    """On PostgreSQL, rows to come are numbered after those that were restored; SQLite looks by itself."""
    column = next(iter(table.primary_key.columns), None)
    if connection.dialect.name == "sqlite" or column is None or len(table.primary_key.columns) != 1:
        return
    if isinstance(column.type, Integer):
        sequence = connection.scalar(select(func.pg_get_serial_sequence(table.name, column.name)))
        highest = connection.scalar(select(func.max(column)))
        if sequence is not None and highest is not None:
            connection.execute(select(func.setval(sequence, literal(highest, BigInteger()))))
