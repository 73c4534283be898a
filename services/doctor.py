"""What is wrong with an installation, part by part, each with what to do: `bgpanet doctor`.

No check fails because another did: whatever one meets becomes its finding.
"""

import importlib.util
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import select

from bgpanet.catalogue import IMAGENET_FILES
from services import jobs, migration, production, queue, tokens, views
from services.artifacts import sha256_of
from services.context import Context
from services.database import now_ms
from services.fleet import Weights
from services.tables import Leader

Verdict = Literal["ok", "doubtful", "wrong"]
SKEW_SECONDS = 2.0  # of clocks, from which signatures and addresses that expire begin to fail
LEAST_DISK_GB, FEW_DISK_GB = 1.0, 10.0
LEAST_MEMORY_GB, FEW_MEMORY_GB = 0.5, 2.0
TORCH_SECONDS = 180.0  # its import on a host that is busy
ASSETS = ("style.css", "live.js", "charts.js")
TORCH = (
    "import json, torch; print(json.dumps({'version': torch.__version__, 'cuda': torch.version.cuda, "
    "'gpus': [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]}))"
)


@dataclass(frozen=True)
class Finding:
    """What one check found. what: as it is; to_do: empty where nothing has to be done."""

    part: str
    verdict: Verdict
    what: str
    to_do: str = ""


Check = Callable[[Context], Iterator[Finding]]


def examine(context: Context) -> Iterator[Finding]:
    """One finding or more of every part, the basic ones first."""
    for part, check in CHECKS.items():
        try:
            yield from check(context)
        except Exception as error:  # whatever it is, it is what people want to know
            told = next(iter(str(error).splitlines()), "") or type(error).__name__
            yield Finding(part, "wrong", told, TO_DO[part])


# ── What all parts stand on ───────────────────────────────────────────────────────────────────────────────────────


def _safety(context: Context) -> Iterator[Finding]:
    if context.settings.embedded:
        yield Finding("safety", "ok", "`bgpanet up` made the secrets of this installation")
        return
    found = list(production.problems(context.settings))
    for problem in found:
        what, _, to_do = problem.partition("; ")
        yield Finding("safety", "wrong", what, to_do)
    if not found:
        yield Finding("safety", "ok", "no secret can be guessed, and no server is used without one")


def _database(context: Context) -> Iterator[Finding]:
    before = time.monotonic()
    context.database.ping()
    kind = "SQLite" if context.database.is_sqlite else "PostgreSQL"
    took = (time.monotonic() - before) * 1000
    yield Finding("database", "ok", f"{kind} answers in {took:.0f} ms")


def _schema(context: Context) -> Iterator[Finding]:
    newest = ScriptDirectory.from_config(migration.config(context.settings.database_url)).get_current_head()
    with context.database.engine.connect() as connection:
        present = MigrationContext.configure(connection).get_current_revision()
    if present == newest:
        yield Finding("schema", "ok", f"revision {present}")
    elif present is None or present < str(newest):
        yield Finding("schema", "wrong", f"revision {present}, this version needs {newest}", TO_DO["schema"])
    else:
        to_do = "update this host: `bgpanet` here is older than what migrated the database"
        yield Finding("schema", "doubtful", f"revision {present}, newer than {newest}, the newest known here", to_do)


def _clock(context: Context) -> Iterator[Finding]:
    before = time.time()
    with context.database.read() as session:
        theirs = (session.scalar(select(now_ms())) or 0) / 1000
    after = time.time()
    # The answer is from some moment between the question and its arrival.
    skew = max(before - theirs, theirs - after, 0.0)
    if skew > SKEW_SECONDS:
        yield Finding("clock", "wrong", f"this host and the database differ by {skew:.1f} s", TO_DO["clock"])
    else:
        yield Finding("clock", "ok", "this host and the database agree")


def _redis(context: Context) -> Iterator[Finding]:
    wakes = queue.unanswered(context.celery)
    yield Finding("redis", "ok", f"answers; {sum(wakes.values())} wake-ups wait")
    url = context.settings.redis_url
    if production.redis_is_open(url):
        local = production.is_local(urlsplit(url).hostname)
        what = "whoever reaches it gets in without a password"
        what += ", which is this machine alone" if local else ""
        yield Finding("redis", "ok" if local else "wrong", what, "" if local else "set `requirepass` there")
    else:
        yield Finding("redis", "ok", "wants a password")


def _artifacts(context: Context) -> Iterator[Finding]:
    """Something goes in, comes out the same, and is gone again. Its key is one that the sweep would delete too."""
    key = f"jobs/doctor/1/{secrets.token_hex(16)}"
    store = context.store
    with tempfile.TemporaryDirectory() as folder:
        out, back = Path(folder, "out"), Path(folder, "back")
        out.write_bytes(os.urandom(100_000))
        digest = sha256_of(out)
        store.put_file(key, out, digest)
        try:
            store.get_file(key, back, digest)
        finally:
            store.delete(key)
    if store.exists(key):
        yield Finding("artifacts", "wrong", "what is deleted is still there", "let the credentials delete objects")
    else:
        yield Finding("artifacts", "ok", f"{context.settings.artifacts_url}: written, read back and deleted")


# ── This host ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _disk(context: Context) -> Iterator[Finding]:
    folders = {"home": context.settings.home}
    if (kept := context.store.local_path("jobs")) is not None:
        folders["artifacts"] = kept.parent
    for name, folder in folders.items():
        folder = next(each for each in (folder, *folder.parents) if each.exists())
        free = shutil.disk_usage(folder).free / 1e9
        what = f"{free:.1f} GB free for {name} ({folder})"
        yield _amount("disk", free, LEAST_DISK_GB, FEW_DISK_GB, what)


def _memory(context: Context) -> Iterator[Finding]:
    told = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
    free = int(told["MemAvailable"].split()[0]) * 1024 / 1e9
    yield _amount("memory", free, LEAST_MEMORY_GB, FEW_MEMORY_GB, f"{free:.1f} GB available")


def _amount(part: str, there: float, least: float, few: float, what: str) -> Finding:
    if there >= few:
        return Finding(part, "ok", what)
    return Finding(part, "wrong" if there < least else "doubtful", what, TO_DO[part])


def _torch(context: Context) -> Iterator[Finding]:
    """In a process of its own: the control plane imports no torch."""
    try:
        version("torch")
    except PackageNotFoundError:
        yield Finding("torch", "ok", "not installed: this host serves, and can run no jobs")
        return
    done = subprocess.run(  # noqa: S603 - our own words
        [sys.executable, "-c", TORCH], capture_output=True, text=True, timeout=TORCH_SECONDS, check=False
    )
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["its import ended without a word"])[-1])
    told = json.loads(done.stdout.splitlines()[-1])
    yield Finding("torch", "ok", f"{told['version']}")
    driver = Path("/proc/driver/nvidia/version").exists()
    if told["gpus"]:
        yield Finding("GPU", "ok", ", ".join(told["gpus"]))
    elif driver:
        what = f"there is an NVIDIA driver, and torch (for CUDA {told['cuda']}) sees no GPU"
        yield Finding("GPU", "wrong", what, TO_DO["GPU"])
    else:
        yield Finding("GPU", "ok", "none; jobs run on the CPU here")


def _assets(context: Context) -> Iterator[Finding]:
    plotly = importlib.util.find_spec("plotly")
    script = Path(str(plotly.origin)).with_name("package_data") / "plotly.min.js" if plotly else Path("plotly")
    static = Path(__file__).with_name("dashboard") / "static"
    missing = [path.name for path in (script, *(static / name for name in ASSETS)) if not path.is_file()]
    if missing:
        yield Finding("browser assets", "wrong", f"missing: {', '.join(missing)}", TO_DO["browser assets"])
    else:
        yield Finding("browser assets", "ok", "all come from this installation")


# ── Parts that run ────────────────────────────────────────────────────────────────────────────────────────────────


def _scheduler(context: Context) -> Iterator[Finding]:
    leading = select(Leader.holder).where(Leader.name == "scheduler", Leader.expires_at >= now_ms())
    with context.database.read() as session:
        holder = session.scalar(leading)
    if holder:
        yield Finding("scheduler", "ok", f"{holder} leads")
    else:
        yield Finding("scheduler", "wrong", "none leads", TO_DO["scheduler"])


def _workers(context: Context) -> Iterator[Finding]:
    rows = views.list_workers(context.database)
    fit = [row for row in rows if row["state"] in ("idle", "busy", "checking")]
    if fit:
        busy = sum(row["state"] == "busy" for row in fit)
        yield Finding("workers", "ok", f"{len(fit)} slots take jobs, {busy} of them busy")
    else:
        yield Finding("workers", "wrong", "no slot takes jobs", TO_DO["workers"])
    for row in rows:
        if row["state"] == "unfit":
            yield Finding("workers", "wrong", f"{row['name']} takes none: {row['why']}", "it looks again by itself")
        elif row["state"] == "lost":
            what = f"{row['name']} was last heard of at {row['seen_at']}"
            yield Finding("workers", "doubtful", what, "look at its host; it is forgotten after an hour")
    offered = {resource_class for row in fit for resource_class in row["resource_classes"]}
    for resource_class, waiting in jobs.count_waiting(context.database).items():
        if resource_class not in offered:
            what = f"{waiting} jobs wait for a slot of class {resource_class}, and none has it"
            yield Finding("workers", "wrong", what, "start a worker on such a host, or cancel them")


def _weights(context: Context) -> Iterator[Finding]:
    told = [Weights(**row["weights"]) for row in views.list_workers(context.database) if row["state"] != "lost"]
    files = {name for weights in told for name in weights.files}
    if any(weights.reachable for weights in told):
        yield Finding("ImageNet weights", "ok", "can be downloaded by workers")
    elif files >= set(IMAGENET_FILES):
        yield Finding("ImageNet weights", "ok", "all lie with workers")
    elif told:
        what = f"{len(files)} of {len(IMAGENET_FILES)} files lie with workers, which can't download others"
        yield Finding("ImageNet weights", "doubtful", what, TO_DO["ImageNet weights"])
    else:
        yield Finding("ImageNet weights", "doubtful", "no worker tells what it has", TO_DO["workers"])


def _tokens(context: Context) -> Iterator[Finding]:
    if tokens.has_admin(context.database):
        yield Finding("tokens", "ok", "there is an admin's")
    else:
        yield Finding("tokens", "wrong", "there is no admin's", TO_DO["tokens"])


CHECKS: dict[str, Check] = {
    "safety": _safety,
    "database": _database,
    "schema": _schema,
    "clock": _clock,
    "redis": _redis,
    "artifacts": _artifacts,
    "disk": _disk,
    "memory": _memory,
    "torch": _torch,
    "browser assets": _assets,
    "tokens": _tokens,
    "scheduler": _scheduler,
    "workers": _workers,
    "ImageNet weights": _weights,
}
TO_DO = {
    "safety": "look at the variables BGPANET_DATABASE_URL, BGPANET_REDIS_URL, BGPANET_ARTIFACTS_URL",
    "database": "start it, or set BGPANET_DATABASE_URL to where it is",
    "schema": "run `bgpanet migrate`",
    "clock": "let both keep time by NTP (`timedatectl set-ntp true`)",
    "redis": "start it, or set BGPANET_REDIS_URL to where it is, with its password",
    "artifacts": "set BGPANET_ARTIFACTS_URL, BGPANET_S3_ENDPOINT_URL, AWS_… to what can be written, read and deleted",
    "disk": "make room, or give BGPANET_HOME a larger disk; BGPANET_PIXEL_CACHE_GB bounds the cache",
    "memory": "stop what else runs here, or run fewer workers",
    "torch": "install bgpanet-service[worker] anew",
    "GPU": "install a torch build for this driver, or a newer driver; `nvidia-smi` tells what it supports",
    "browser assets": "install bgpanet-service[api] anew",
    "tokens": "run `bgpanet first-token`",
    "scheduler": "start `bgpanet scheduler`; its log tells why one does not lead",
    "workers": "start `bgpanet worker`",
    "ImageNet weights": "put the files into the folder that `bgpanet workers` names, or start trainings without",
}
