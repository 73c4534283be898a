"""What a slot makes sure of before it takes its first job. No torch in here: a child of its fork server computes."""

import logging
import os
import secrets
import shutil
import time
from collections.abc import Iterator

from sqlalchemy import inspect, select

from services.artifacts import sha256_of
from services.context import Context
from services.database import now_ms
from services.tables import Base
from services.worker.child import ForkServer, ForkServerGone

FREE_BYTES = 1_000_000_000  # that the scratch folder has to have
CLOCK_SECONDS = 1.0  # of difference that are not worth a word
WRITTEN = ("workers", "worker_use", "attempts", "transitions", "metrics", "log_lines", "checkpoints", "artifacts")
"""The tables into which workers insert rows."""
CHECK_SECONDS = 120.0  # for the fork server's import and the product

log = logging.getLogger(__name__)


def problems(context: Context, server: ForkServer) -> Iterator[str]:
    """Everything that keeps a slot from doing jobs; the quick questions come first."""
    for name, check in (("scratch folder", _scratch), ("artifact store", _store), ("database", _database)):
        try:
            check(context)
        except Exception as error:  # whatever it is, jobs would meet it too
            yield f"{name}: {_first_line(error)}"
    try:
        if (wrong := server.check(CHECK_SECONDS)) is not None:
            yield f"device: {wrong}"
    except ForkServerGone as error:
        yield f"fork server: {error}"


def _scratch(context: Context) -> None:
    folder = context.settings.scratch
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"selftest-{secrets.token_hex(8)}"
    path.write_bytes(b"written")
    path.unlink()
    free = shutil.disk_usage(folder).free
    if free < FREE_BYTES:
        raise OSError(f"{folder} has {free / 1e9:.2f} GB free, and needs {FREE_BYTES / 1e9:g}")


def _store(context: Context) -> None:
    """Something goes in, comes out the same, and is gone again. Its key is one that the sweep would delete too."""
    name = secrets.token_hex(16)
    out, back = (context.settings.scratch / f"selftest-{name}-{way}" for way in ("out", "back"))
    try:
        out.write_bytes(os.urandom(1000))
        digest, key = sha256_of(out), f"jobs/selftest/{name}"
        context.store.put_file(key, out, digest)
        try:
            context.store.get_file(key, back, digest)
        finally:
            context.store.delete(key)
    finally:
        out.unlink(missing_ok=True)
        back.unlink(missing_ok=True)


def _database(context: Context) -> None:
    """Every column that this version reads is there, and none has to be filled that it does not know."""
    with context.database.read() as session:
        ahead = (session.scalar(select(now_ms())) or 0) / 1000 - time.time()
        for table in Base.metadata.sorted_tables:
            session.execute(select(table).limit(0))
        found = inspect(session.connection()).get_multi_columns(filter_names=WRITTEN)
    demanded = [
        f"{name}.{column['name']}"
        for (_, name), columns in found.items()
        for column in columns
        if column["name"] not in Base.metadata.tables[name or ""].columns
        and not column["nullable"]
        and column["default"] is None
    ]
    if demanded:
        raise ValueError(f"{', '.join(demanded)} must be filled, and this version does not know it; start a newer one")
    if abs(ahead) > CLOCK_SECONDS:
        log.warning("the database's clock is %+.1f s from this host's; leases are counted by the database's", ahead)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
