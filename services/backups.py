"""Backups: all tables as they were at one moment, and every stored file that they name.

    DIR/objects/ab/ab12…                    files by their SHA-256; what is there is not fetched again
    DIR/snapshots/20260301T093000Z/         one moment
        manifest.json                       written last: a folder without one is a backup that was cut off
        objects.jsonl.gz                    every file that is named: key, sha256, size, media_type
        tables/jobs.jsonl.gz                a line of column names, then a line a row

Nothing in it depends on the kind of database or store: what was backed up from SQLite and a folder can be restored into
PostgreSQL and S3. `services.restoring` reads it.
"""

import gzip
import json
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from io import TextIOWrapper
from pathlib import Path
from typing import Any, TextIO

from alembic.migration import MigrationContext
from sqlalchemy import Connection, MetaData, select, text

from services.artifacts import sha256_of
from services.context import Context
from services.database import Database
from services.errors import ArtifactMissing, Conflict

FORMAT = 1
ROWS_AT_ONCE = 500
PASSES = 3  # over tables, where files that they named were deleted before they could be fetched
PAUSE_SECONDS = 2.0
OF_PROCESSES = frozenset(
    {"workers", "worker_use", "leaders", "alembic_version"}
)  # who runs here and now; the last is in the manifest
OPEN_UPLOADS = "open"  # their parts lie in the store under names of its own


@dataclass(frozen=True)
class StoredObject:
    """A stored file that a row names."""

    key: str
    sha256: str
    size: int
    media_type: str = "application/octet-stream"

    def place(self, folder: Path) -> Path:
        """Where it lies in a backup."""
        return folder / "objects" / self.sha256[:2] / self.sha256


@dataclass
class Backup:
    """What a backup holds, and what it took.

    missing: keys that rows name and the store has not, or has damaged.
    """

    folder: Path
    rows: int = 0
    objects: int = 0
    bytes: int = 0
    fetched: int = 0
    missing: list[str] = field(default_factory=list)


def back_up(context: Context, folder: Path) -> Backup:
    """Writes a snapshot into `folder`, beside those that are there.

    Files that are deleted meanwhile, since their job went on, make it look at the tables again.

    Raises:
        Conflict: the database has no schema that this version knows.
        StorageError, SQLAlchemyError, OSError: nothing of it counts; what was fetched is not fetched again.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    begun = datetime.now(UTC)
    snapshot = folder / "snapshots" / f"{begun:%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"
    fetched = 0
    for number in range(PASSES):
        tables, revision = _dump(context.database, snapshot)
        backup = _fetch(context, folder, snapshot)
        backup.fetched = fetched = fetched + backup.fetched
        if not backup.missing:
            break
        if number + 1 < PASSES:
            time.sleep(PAUSE_SECONDS)
    backup.rows = sum(table["rows"] for table in tables.values())
    manifest = {
        "format": FORMAT,
        "made_at": begun.isoformat(timespec="seconds").replace("+00:00", "Z"),
        "made_by": f"bgpanet-service {version('bgpanet-service')}",
        "revision": revision,
        "tables": tables,
        "objects": {
            "number": backup.objects,
            "bytes": backup.bytes,
            "sha256": sha256_of(snapshot / "objects.jsonl.gz"),
        },
        "missing": backup.missing,
    }
    partial = snapshot / ".manifest.json"
    partial.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    partial.replace(snapshot / "manifest.json")
    return backup


# ── Tables ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _dump(database: Database, snapshot: Path) -> tuple[dict[str, Any], str]:
    """Writes every table, all as of one moment. Returns what each holds, and the schema's revision."""
    (snapshot / "tables").mkdir(parents=True, exist_ok=True, mode=0o700)
    told: dict[str, Any] = {}
    with _at_one_moment(database) as connection, _lines_to(snapshot / "objects.jsonl.gz") as objects:
        revision = MigrationContext.configure(connection).get_current_revision()
        if revision is None:
            raise Conflict("the database has no tables yet: there is nothing to back up")
        schema = MetaData()
        schema.reflect(connection)
        for table in schema.sorted_tables:
            if table.name in OF_PROCESSES:
                continue
            path = snapshot / "tables" / f"{table.name}.jsonl.gz"
            names = [column.name for column in table.columns]
            rows = 0
            with _lines_to(path) as lines:
                lines.write(json.dumps(names) + "\n")
                query = select(table).order_by(*table.primary_key.columns)
                for row in connection.execute(query, execution_options={"yield_per": ROWS_AT_ONCE}).mappings():
                    if table.name == "uploads" and row["state"] == OPEN_UPLOADS:
                        continue
                    lines.write(json.dumps([row[name] for name in names], ensure_ascii=False) + "\n")
                    objects.writelines(json.dumps(vars(each)) + "\n" for each in named_by(dict(row)))
                    rows += 1
            told[table.name] = {"rows": rows, "sha256": sha256_of(path)}
    return told, revision


@contextmanager
def _at_one_moment(database: Database) -> Iterator[Connection]:
    """A connection that sees the database as it is now, whatever is written meanwhile; it holds up nobody."""
    options: dict[str, Any] = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    if database.is_sqlite:
        options = {"bgpanet_read": True}
    with database.engine.connect().execution_options(**options) as connection, connection.begin():
        if not database.is_sqlite:
            connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = '10min'"))
        yield connection


def named_by(row: Mapping[str, Any]) -> Iterator[StoredObject]:
    """The stored files that a row names: by columns `key`, `sha256`, `size`, or by such objects in its JSON."""
    if {"key", "sha256", "size"} <= row.keys():
        if row.get("state") not in ("expired", OPEN_UPLOADS):
            named = {"media_type": row["media_type"]} if "media_type" in row else {}
            yield StoredObject(row["key"], row["sha256"], row["size"], **named)
        return
    if row.get("removed_at") is None:
        for value in row.values():
            yield from _named_in(value)


def _named_in(value: Any) -> Iterator[StoredObject]:
    if isinstance(value, dict):
        if {"key", "sha256", "size"} <= value.keys():
            yield StoredObject(value["key"], value["sha256"], value["size"])
        else:
            for each in value.values():
                yield from _named_in(each)
    elif isinstance(value, list):
        for each in value:
            yield from _named_in(each)


@contextmanager
def _lines_to(path: Path) -> Iterator[TextIO]:
    """A compressed file that only its owner may read; the same rows are the same bytes."""
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    with (
        path.open("wb") as raw,
        gzip.GzipFile("", "wb", 6, raw, mtime=0) as zipped,
        TextIOWrapper(zipped, encoding="utf-8", newline="\n") as lines,
    ):
        yield lines


def lines_of(path: Path) -> Iterator[Any]:
    """What `_lines_to` wrote, one by one."""
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as lines:
        for line in lines:
            yield json.loads(line)


def objects_of(snapshot: Path) -> Iterator[StoredObject]:
    """Every file that the tables of a snapshot name."""
    return (StoredObject(**each) for each in lines_of(snapshot / "objects.jsonl.gz"))


# ── Files ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _fetch(context: Context, folder: Path, snapshot: Path) -> Backup:
    """Fetches the files of a snapshot that are not there yet, each checked by its digest."""
    backup = Backup(snapshot)
    seen: set[bytes] = set()
    for named in objects_of(snapshot):
        if (digest := bytes.fromhex(named.sha256)) in seen:
            continue
        seen.add(digest)
        place = named.place(folder)
        if not (place.exists() and place.stat().st_size == named.size):
            if not _fetched(context, named, place):
                backup.missing.append(named.key)
                continue
            backup.fetched += 1
        backup.objects += 1
        backup.bytes += named.size
    return backup


def _fetched(context: Context, named: StoredObject, place: Path) -> bool:
    """Whether the file could be had whole. Raises StorageError where the store does not answer."""
    place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    arriving = place.with_name(f".{place.name}.arriving")
    try:
        context.store.get_file(named.key, arriving)
        if sha256_of(arriving) != named.sha256:
            return False
        arriving.chmod(0o600)
        arriving.replace(place)
    except ArtifactMissing:
        return False
    finally:
        arriving.unlink(missing_ok=True)
    return True
