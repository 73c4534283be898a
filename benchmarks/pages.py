"""How long the server needs for the dashboard's pages with 100,000 jobs in the table: each is to open within 300 ms."""

import contextlib
import itertools
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flask.testing import FlaskClient
from sqlalchemy import insert, select, text, update

from benchmarks.api import JOBS, fill
from benchmarks.timing import Figure
from services import dashboard, tokens
from services.database import Database, now_ms
from services.migration import migrate
from services.settings import Settings
from services.tables import (
    Artifact,
    Checkpoint,
    Job,
    Metric,
    ModelVersion,
    RegisteredModel,
    Transition,
    Worker,
    WorkerUse,
)
from services.web import create_app
from tests.support.clocked import MODEL, VERSION
from tests.support.servers import fresh_database, postgres_server

GOAL = 300  # milliseconds
REPEATS = 15
DAYS = 30  # over which the jobs were submitted
RUNNING, WAITING, WORKERS, MODELS = 12, 1_000, 16, 200
LATEST = 200  # jobs, of which some are shown
POINTS = 100_000  # figures of one job
EPOCHS = 180
PER_STEP = ("train_loss", "learning_rate", "loss_weight_ce", "loss_weight_focal")
PER_EPOCH = ("validation_loss", "validation_balanced_accuracy")
CHUNK = 10_000


@dataclass(frozen=True)
class Shown:
    """Ids of jobs that the pages are asked for. long: one with `POINTS` figures; parent: one with children."""

    long: str
    other: str
    parent: str


def measure() -> Iterator[tuple[str, Figure]]:
    """(goal, milliseconds), on SQLite and on PostgreSQL."""
    with tempfile.TemporaryDirectory() as name:
        yield from _measured("SQLite", f"sqlite:///{name}/bgpanet.db", Path(name))
    with tempfile.TemporaryDirectory() as name, postgres_server(Path(name)) as server:
        yield from _measured("PostgreSQL", fresh_database(server), Path(name))


def _measured(kind: str, url: str, folder: Path) -> Iterator[tuple[str, Figure]]:
    migrate(url)
    places = (folder / "home", url, "redis://127.0.0.1:1/0", (folder / "files").as_uri())
    app = create_app(Settings(*places, requests_per_second=10_000.0, requests_at_once=10_000))
    dashboard.prepare(app)  # as a process of the API does before it answers
    with contextlib.closing(app.extensions["bgpanet"].database) as database:
        shown = busy(database, JOBS)
        client = app.test_client()
        with client.session_transaction() as session:
            session["token"] = tokens.digest_of(tokens.create(database, "benchmark", "root", "admin")[1])
        told = f"milliseconds of the server, {JOBS:,} jobs, {kind}; goal: {GOAL}"
        for name, path in pages(shown).items():
            first, *later = (_asked(client, path) for _ in range(1 + REPEATS))
            yield f"pages, {kind}, {name}", Figure(f"{told}; median of {REPEATS}", 1000 * statistics.median(later))
            yield f"pages, {kind}, {name}, first", Figure(f"{told}; the first time", 1000 * first)


def _asked(client: FlaskClient, path: str) -> float:
    """Seconds until the last byte of an answer is there."""
    begun = time.perf_counter()
    answer = client.get(path)
    answer.get_data()
    if answer.status_code != 200:
        raise RuntimeError(f"{path}: HTTP {answer.status_code}")
    return time.perf_counter() - begun


def pages(shown: Shown) -> dict[str, str]:
    """The paths that are asked for, by what they show."""
    both = f"job={shown.long}&job={shown.other}"
    return {
        "overview": "/overview",
        "jobs": "/jobs",
        "jobs, filtered": "/jobs?state=failed&kind=train",
        "jobs, searched": "/jobs?q=night+7712",
        "jobs, by name": "/jobs?sort=name",
        "jobs, children opened": f"/jobs?open={shown.parent}",
        "job": f"/jobs/{shown.long}",
        "job, curves": f"/jobs/{shown.long}/curves",
        "job, curves smoothed": f"/jobs/{shown.long}/curves?smoothing=0.9",
        "job with children": f"/jobs/{shown.parent}",
        "compare": f"/compare?{both}",
        "compare, curves": f"/compare/curves?{both}",
        "datasets": "/datasets",
        "models": "/models",
        "workers": "/workers",
        "workers, 2 days": "/workers?span=48",
    }


def busy(database: Database, count: int) -> Shown:
    """`benchmarks.api.fill`, and around those jobs what a service has after a month: some run, some wait, all others
    have a story, results and checkpoints."""
    every = fill(database, count).every
    with database.read() as session:
        now = session.scalar(select(now_ms())) or 0
        parent = session.scalar(select(Job.parent_id).where(Job.parent_id.is_not(None)).order_by(Job.parent_id.desc()))
        alone = session.scalars(select(Job.id).where(Job.id.in_(every[-LATEST:]), Job.kind == "train")).all()
    assert parent is not None  # noqa: S101 - a fifth of the jobs has one
    long, *running = alone[: 1 + RUNNING]
    waiting = every[-WAITING - LATEST : -LATEST]
    _store(database, Transition, _stories(every, now))
    _store(database, Artifact, _results(every))
    _store(database, Checkpoint, _checkpoints(every[::10]))
    _store(database, Metric, (point for job in running for point in _figures(job, POINTS // 20)))
    _store(database, Metric, _figures(long, POINTS))
    _store(database, Worker, _workers(running, now))
    _store(database, WorkerUse, _use(now))
    _store(database, RegisteredModel, ({**MODEL, "id": f"m{n}", "name": f"lesions-{n}"} for n in range(MODELS)))
    _store(database, ModelVersion, ({**VERSION, "id": f"v{n}", "model_id": f"m{n}"} for n in range(MODELS)))
    going: dict[str, Any] = {"state": "running", "started_at": now - 600_000, "finished_at": None, "summary": {}}
    with database.write() as session:
        for number, job in enumerate(running):
            session.execute(update(Job).where(Job.id == job).values(**going, worker=f"gpu-{number}/0"))
        queued: dict[str, Any] = {
            "state": "queued",
            "wants_worker": True,
            "started_at": None,
            "finished_at": None,
            "summary": {},
        }
        session.execute(update(Job).where(Job.id.in_(waiting), Job.kind == "train").values(**queued, attempt=0))
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE" if database.is_sqlite else "VACUUM ANALYZE"))
    return Shown(long, running[0], parent)


def _store(database: Database, table: Any, rows: Iterable[dict[str, Any]]) -> None:
    rows = iter(rows)
    while chunk := list(itertools.islice(rows, CHUNK)):
        with database.write() as session:
            session.execute(insert(table), chunk)


def _stories(jobs: list[str], now: int) -> Iterator[dict[str, Any]]:
    every = DAYS * 86_400_000 // len(jobs)
    for number, job in enumerate(jobs):
        for state, later in (("queued", 0), ("running", every // 3), ("succeeded", every // 2)):
            at = now - (len(jobs) - number) * every + later
            yield {"job_id": job, "at": at, "attempt": int(state != "queued"), "state": state, "detail": ""}


def _file(job: str, name: str) -> dict[str, Any]:
    return {"key": f"jobs/{job}/1/{name}", "sha256": "0" * 64, "size": 123_456}


def _results(jobs: list[str]) -> Iterator[dict[str, Any]]:
    for job in jobs:
        for name, media in (("report.json", "application/json"), ("model.safetensors", "application/octet-stream")):
            yield {**_file(job, name), "job_id": job, "name": name, "attempt": 1, "media_type": media, "created_at": 0}


def _checkpoints(jobs: list[str]) -> Iterator[dict[str, Any]]:
    for job in jobs:
        files = {name: _file(job, name) for name in ("model.safetensors", "optimizer.safetensors", "state.json")}
        yield {"job_id": job, "attempt": 1, "step": 1800, "epoch": EPOCHS, "created_at": 0, "files": files}


def _figures(job: str, count: int) -> Iterator[dict[str, Any]]:
    """About so many: most at every step, some after every epoch."""
    steps = count // len(PER_STEP)
    for names, number in ((PER_STEP, steps), (PER_EPOCH, EPOCHS)):
        for name, n in itertools.product(names, range(1, number + 1)):
            step = n * steps // number
            value = 1 / (1 + n) + n % 7 / 100
            yield {"job_id": job, "name": name, "step": step, "epoch": step * EPOCHS // steps, "value": value}


def _workers(jobs: list[str], now: int) -> Iterator[dict[str, Any]]:
    for number in range(WORKERS):
        yield {
            "name": f"gpu-{number}/0", "host": f"gpu-{number}", "pid": 1000 + number, "version": "1.0", "device": "CPU",
            "resource_classes": ["any", "gpu"], "job_id": jobs[number] if number < len(jobs) else None, "figures": {},
            "started_at": now, "seen_at": now + 3_600_000,
        }  # fmt: skip


def _use(now: int) -> Iterator[dict[str, Any]]:
    """What every worker told over two days."""
    for number, minute in itertools.product(range(WORKERS), range(2 * 24 * 60)):
        use = {"busy": minute % 10 / 10, "gpu_percent": float(minute % 100), "cpu_percent": 50.0}
        yield {"worker": f"gpu-{number}/0", "at": now - 60_000 * minute, **use}
