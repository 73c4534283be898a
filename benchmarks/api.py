"""P14: the API with 100,000 jobs in the table, asked 100 times a second, and its last page over its first."""

import contextlib
import http.client
import itertools
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import insert, text

from benchmarks.product import Product, until
from benchmarks.timing import Figure, Ratio, compare
from bgpanet.specs import parse_spec
from services import tokens
from services.context import Context
from services.database import Database
from services.ids import new_id
from services.migration import migrate
from services.settings import Settings
from services.tables import Dataset, Job
from services.tokens import Role
from tests.support.clocked import DATASET
from tests.support.servers import free_port, fresh_database, postgres_server

JOBS, FOLDS, USERS = 100_000, 5, 20
RATE, SECONDS, SENDERS = 100, 60, 48
WARM_UP = 5  # seconds that are not counted
PAGE = 50
CHUNK = 5_000
OWNER = "user-3"
TOKENS: dict[str, Role] = {"root": "admin", OWNER: "researcher"}
NAMES = ("train", "baseline", "ablation", "night run", "reviewer 2")


@dataclass(frozen=True)
class Asked:
    """A request that was sent when it was due. seconds: from then to its last byte. status: 0: it was cut off."""

    kind: str
    due: float
    seconds: float
    status: int


def measure() -> Iterator[tuple[str, Ratio | Figure]]:
    """(goal, what was measured), on SQLite and on PostgreSQL."""
    with tempfile.TemporaryDirectory() as name:
        yield from _measured("SQLite", f"sqlite:///{name}/bgpanet.db", Path(name))
    with tempfile.TemporaryDirectory() as name, postgres_server(Path(name)) as server:
        yield from _measured("PostgreSQL", fresh_database(server), Path(name))


def _measured(kind: str, url: str, folder: Path) -> Iterator[tuple[str, Ratio | Figure]]:
    context = Context(Settings(folder / "home", url, "redis://127.0.0.1:1/0", (folder / "files").as_uri()))
    migrate(url)
    with contextlib.closing(context.database) as database:
        filled = fill(database, JOBS)
        secrets = {user: tokens.create(database, "benchmark", user, role)[1] for user, role in TOKENS.items()}
        address = f"http://127.0.0.1:{(port := free_port())}"
        with Product(context, folder).process("services.cli", "api", "--port", str(port)):
            caller = Caller(address, secrets)
            until(lambda: caller.is_ready() or None, "the API")
            found = load(address, secrets, kinds_of(filled))
            told = f"{RATE} requests/s for {SECONDS} s, {JOBS:,} jobs, {kind}"
            for number in (50, 95, 99):
                yield f"P14, {kind}, p{number}", Figure(f"milliseconds, {told}", 1000 * percentile(found, number))
            for what in sorted({one.kind for one in found}):
                of_kind = [one for one in found if one.kind == what]
                yield f"P14, {kind}, {what}, p99", Figure(f"milliseconds, {told}", 1000 * percentile(of_kind, 99))
            refused = sum(one.status != 200 for one in found)
            yield f"P14, {kind}, refused", Figure(f"requests of {len(found)} that were not answered by 200", refused)
            caller = Caller(address, secrets)  # the one before was idle too long, and was cut off
            first, last = f"jobs?limit={PAGE}", f"jobs?limit={PAGE}&cursor={filled.every[PAGE]}"
            pages = compare("the last page", lambda: caller.ask(last), "the first", lambda: caller.ask(first), pairs=31)
            yield f"P14, {kind}, pages", pages


@dataclass(frozen=True)
class Filled:
    """Ids of jobs that have no parent, oldest first. own: those of `OWNER`."""

    every: list[str]
    own: list[str]


def fill(database: Database, count: int) -> Filled:
    """Jobs of several users, kinds and states on two data sets; a fifth of them are folds of others."""
    datasets = [{**DATASET, "id": new_id(), "name": name, "version": 1} for name in ("lesions", "ham10000")]
    every, own = [], []
    with database.write() as session:
        session.execute(insert(Dataset), datasets)
    parents = count // (FOLDS * 5)
    rows = _rows(count, parents, [str(dataset["id"]) for dataset in datasets])
    while chunk := list(itertools.islice(rows, CHUNK)):
        with database.write() as session:
            session.execute(insert(Job), chunk)
        every += [row["id"] for row in chunk if row["parent_id"] is None]
        own += [row["id"] for row in chunk if row["parent_id"] is None and row["created_by"] == OWNER]
    if not database.is_sqlite:
        with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE"))  # as its own processes do sooner or later
    return Filled(sorted(every), sorted(own))


def _rows(count: int, parents: int, datasets: list[str]) -> Iterator[dict[str, Any]]:
    spec = {kind: _spec(kind) for kind in ("train", "cross_validate")}
    figures = {
        name: 0.4242 + number / 1000 for number, name in enumerate(("balanced_accuracy", "accuracy", "macro_f1"))
    }
    summary = {
        "figures": figures,
        "intervals": {name: [value - 0.05, value + 0.05] for name, value in figures.items()},
        "classes": ["akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"],
        "constant": {"class": "nv", "figures": figures},
    }
    plain: dict[str, Any] = {
        "reason": None, "error": None, "resource_class": "any", "priority": 0, "attempt": 1, "losses": 0,
        "max_attempts": 3, "wants_worker": False, "on_failure": "finish_rest", "not_before": 0,
        "cancel_requested": False, "pause_requested": False, "created_at": 1_760_000_000_000,
        "started_at": 1_760_000_001_000, "finished_at": 1_760_000_900_000,
        "progress": {"fraction": 1.0, "step": 1800, "steps": 1800, "epoch": 180, "epochs": 180, "message": "loss 0.4"},
    }  # fmt: skip
    every = max(1, (count - parents * FOLDS) // max(1, parents))
    for number in range(count - parents * FOLDS):
        kind = "cross_validate" if number % every == 0 and number // every < parents else "train"
        state = "failed" if number % 50 == 0 else "cancelled" if number % 50 == 1 else "succeeded"
        row = {
            **plain, "id": new_id(), "kind": kind, "name": f"{NAMES[number % 5]} {number}", "state": state,
            "spec": spec[kind], "summary": summary if state == "succeeded" else {}, "parent_id": None, "position": None,
            "created_by": f"user-{number % USERS}", "dataset_id": datasets[number % 2],
        }  # fmt: skip
        yield row
        if kind == "cross_validate":
            for fold in range(FOLDS):
                yield {
                    **row,
                    "id": new_id(),
                    "kind": "train",
                    "spec": spec["train"],
                    "parent_id": row["id"],
                    "position": fold,
                }


def _spec(kind: str) -> dict[str, Any]:
    return parse_spec(kind, {"model": "bgpanet", "training": {"epochs": 180}}).model_dump(mode="json")


@dataclass(frozen=True)
class Kind:
    """What is asked for by turns. path: below `/api/v1/`, which the request's number varies. who: a key of `TOKENS`."""

    path: Callable[[int], str]
    who: str = "root"


def kinds_of(filled: Filled) -> dict[str, Kind]:
    """Lists from end to end, of all and of one's own, jobs, filters and searches."""
    every, own = filled.every, filled.own
    page = f"jobs?limit={PAGE}"
    return {
        "first page": Kind(lambda number: page),
        "last page": Kind(lambda number: f"{page}&cursor={every[PAGE]}"),
        "page in the middle": Kind(lambda number: f"{page}&cursor={every[number * 7919 % len(every)]}"),
        "job": Kind(lambda number: f"jobs/{every[number * 7919 % len(every)]}"),
        "own first page": Kind(lambda number: page, OWNER),
        "own last page": Kind(lambda number: f"{page}&cursor={own[PAGE]}", OWNER),
        "filter": Kind(lambda number: f"{page}&state=failed&kind=train"),
        "words": Kind(lambda number: f"{page}&q=night+{number * 7919 % len(every)}"),
    }


class Caller:
    """One connection to the API, which stays open."""

    def __init__(self, address: str, secrets: dict[str, str]) -> None:
        self.connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)
        self.headers = {who: {"Authorization": f"Bearer {secret}"} for who, secret in secrets.items()}

    def ask(self, path: str, who: str = "root") -> int:
        """The status of the answer, which is read to its end."""
        self.connection.request("GET", f"/api/v1/{path}", headers=self.headers[who])
        answer = self.connection.getresponse()
        answer.read()
        return answer.status

    def is_ready(self) -> bool:
        """Whether the API answers."""
        try:
            return self.ask("me") == 200
        except OSError:
            self.connection.close()
            return False


def load(address: str, secrets: dict[str, str], kinds: dict[str, Kind]) -> list[Asked]:
    """Sends each request when it is due, whether or not earlier ones were answered, and counts its time from then."""
    numbers, begun = itertools.count(), time.perf_counter() + 0.5
    last, names = RATE * (SECONDS + WARM_UP), list(kinds)
    found: list[Asked] = []

    def send() -> None:
        caller = Caller(address, secrets)
        while (number := next(numbers)) < last:
            due = begun + number / RATE
            time.sleep(max(0.0, due - time.perf_counter()))
            name = names[number % len(names)]
            try:
                status = caller.ask(kinds[name].path(number), kinds[name].who)
            except (OSError, http.client.HTTPException):
                caller.connection.close()
                status = 0
            found.append(Asked(name, due - begun, time.perf_counter() - due, status))

    senders = [threading.Thread(target=send) for _ in range(SENDERS)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    return [one for one in found if one.due >= WARM_UP]


def percentile(found: list[Asked], number: int) -> float:
    """Seconds within which so many of a hundred requests were answered."""
    return statistics.quantiles([one.seconds for one in found], n=100, method="inclusive")[number - 1]
