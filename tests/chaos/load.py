"""The load: small real trainings, cross-validations and predictions of several users, sent through the API.

What a job must come to is known before it is sent: the same was run undisturbed at the beginning.
"""

import random
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import select

from bgpanet.data import synthetic
from services import datasets, submission
from services.client import ApiError, Client
from services.context import Context
from services.datasets import Registration
from services.submission import Request
from services.tables import TERMINAL, Job
from tests.chaos.judge import Fingerprint, fingerprint
from tests.chaos.product import USERS, Product
from tests.support.cluster import ADMIN, tiny_spec

DATASET = "lesions"
ACCEPT_SECONDS = 180.0  # for which a client tries to hand a job in
SUCCEEDED = frozenset({"succeeded"})


@dataclass(frozen=True)
class Order:
    """What is asked for. `like`: the undisturbed job that it must equal, if it succeeds; None: nothing to compare."""

    kind: str
    spec: Mapping[str, Any]
    like: str | None = None
    ends: frozenset[str] = SUCCEEDED  # `succeeded`, `cancelled`, or the reason of a failure
    user: str = USERS[0]
    priority: int = 0


@dataclass
class Accepted:
    """A job that the API has taken."""

    id: str
    order: Order
    ends: frozenset[str]
    note: str = ""


@dataclass
class Submissions:
    """How often something was sent, and how often it was there already."""

    sent: int = 0
    repeated: int = 0
    refused: list[str] = field(default_factory=list)


class Load:
    """Keeps `width` jobs in the product until it is told to stop."""

    def __init__(self, product: Product, seed: int, width: int, epochs: int, variants: int) -> None:
        self.product, self.width, self.epochs, self.variants = product, width, epochs, variants
        self.random = random.Random(f"load {seed}")
        self.accepted: dict[str, Accepted] = {}
        self.references: dict[str, Fingerprint] = {}
        self.count = Submissions()
        self._model = ""
        self._clients = {user: Client(product.url, token) for user, token in product.tokens.items()}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)
        self._error: BaseException | None = None

    # ── Before the first fault ────────────────────────────────────────────────────────────────────────────────────

    def prepare(self) -> None:
        """Registers the data set and runs one of each kind undisturbed."""
        lesions = self.product.folder / "lesions"
        synthetic.draw(lesions, lesions=40, seed=3)
        # By a worker: in this process a run would take over SIGTERM and Ctrl-C.
        asked = Registration(name=DATASET, format="ham10000", project="shared", folder=str(lesions))
        datasets.register(self.product.context, ADMIN, asked)
        first = {f"train {n}": Order("train", self.training(n)) for n in range(self.variants)}
        first["cross-validation"] = Order("cross_validate", self.training(0, epochs=2))
        done = self._undisturbed(first)
        self._model = done["train 0"]
        self._undisturbed({"prediction": Order("predict", {"model": self._model})})

    def _undisturbed(self, orders: Mapping[str, Order]) -> dict[str, str]:
        jobs = {name: self.submit(order).id for name, order in orders.items()}
        database = self.product.context.database
        deadline = time.monotonic() + 300
        while (left := self.open_jobs(set(jobs.values()))) and time.monotonic() < deadline:
            time.sleep(0.2)
        for name, job_id in jobs.items():
            with database.read() as session:
                job = session.get_one(Job, job_id)
            if left or job.state != "succeeded":
                raise AssertionError(f"{name} failed undisturbed: {job.state} {job.error}\n{self.product.logs()}")
            self.references[name] = fingerprint(database, job_id)
        return jobs

    def training(self, variant: int, epochs: int | None = None, **more: Any) -> dict[str, Any]:
        return tiny_spec(epochs or self.epochs, **{"checkpoint_seconds": 0, "seed": variant, **more})

    # ── Submitting ────────────────────────────────────────────────────────────────────────────────────────────────

    def draw(self, rng: random.Random) -> Order:
        """The next job."""
        user, priority = rng.choice(USERS), rng.choice((0, 0, 0, 1))
        kind = rng.random()
        if kind < 0.10:
            spec = self.training(0, epochs=2)
            return Order("cross_validate", spec, "cross-validation", user=user, priority=priority)
        if kind < 0.28:
            return Order("predict", {"model": self._model}, "prediction", priority=priority)
        if kind < 0.33:
            spec = self.training(0, learning_rate=10.0, minimum_learning_rate=10.0, weight_decay=1.0)
            return Order("train", spec, None, frozenset({"non_finite_loss"}), user, priority)
        return self.ordinary(rng.randrange(self.variants), user, priority)

    def ordinary(self, variant: int = 0, user: str = USERS[0], priority: int = 0) -> Order:
        """A training."""
        return Order("train", self.training(variant), f"train {variant}", SUCCEEDED, user, priority)

    def submit(self, order: Order, times: int = 1, at_once: int = 1, note: str = "") -> Accepted:
        """Hands an order in until it is accepted; the same one `times` in all, `at_once` beside each other.

        Raises:
            AssertionError: it was refused, or the same key gave two jobs.
        """
        with self._lock:
            key = f"chaos-{self.random.getrandbits(64):016x}"
        if times == 1:
            ids = {self._accept(order, key)}
        else:
            with ThreadPoolExecutor(at_once) as pool:
                ids = set(pool.map(lambda _: self._accept(order, key), range(times)))
        if len(ids) != 1:
            raise AssertionError(f"one submission, repeated {times} times, became {len(ids)} jobs: {sorted(ids)}")
        taken = Accepted(ids.pop(), order, order.ends, note)
        with self._lock:
            self.count.sent += times
            self.count.repeated += times - 1
            self.accepted[taken.id] = taken
        return taken

    def submit_frail(self, order: Order, max_attempts: int, ends: frozenset[str], note: str) -> Accepted:
        """Queues a job that may be lost less often than others: by the function that the API calls."""
        context = Context(replace(self.product.settings, max_attempts=max_attempts))
        try:
            asked = Request(kind=order.kind, dataset=DATASET, spec=order.spec)
            job, _ = submission.submit(context, ADMIN, asked)
        finally:
            context.database.close()
        taken = Accepted(str(job["id"]), order, ends, note)
        with self._lock:
            self.count.sent += 1
            self.accepted[taken.id] = taken
        return taken

    def _accept(self, order: Order, key: str) -> str:
        body: dict[str, Any] = {
            "dataset": DATASET,
            "spec": order.spec,
            "priority": order.priority,
            "idempotency_key": key,
        }
        return self._insist(lambda: self._clients[order.user].submit(order.kind, **body).id)

    def _insist(self, ask: Callable[[], str]) -> str:
        deadline = time.monotonic() + ACCEPT_SECONDS
        while True:
            try:
                return ask()
            except ApiError as error:
                if error.status and error.status < 500:
                    raise AssertionError(f"the API refused what is right: {error}") from error
                if time.monotonic() > deadline:
                    raise AssertionError(f"the API took nothing for {ACCEPT_SECONDS:.0f} s: {error}") from error
                time.sleep(0.2)

    def cancel(self, job: Accepted) -> None:
        """Cancels a job, whose end may come first."""
        job.ends |= {"cancelled"}
        self._insist(lambda: self._clients[USERS[0]].job(job.id).cancel().state)

    # ── While faults come ─────────────────────────────────────────────────────────────────────────────────────────

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Sends no more. Raises what went wrong while sending."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()
        self.check()

    def check(self) -> None:
        """Raises what went wrong while sending."""
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        self._stopping.set()
        for client in self._clients.values():
            client.close()

    def _run(self) -> None:
        try:
            while not self._stopping.wait(0.3):
                try:
                    missing = self.width - len(self.open_jobs())
                except OSError:
                    continue
                for _ in range(missing):
                    self._send_one()
        except BaseException as error:
            self._error = error

    def _send_one(self) -> None:
        order = self.draw(self.random)
        times = self.random.choice((1, 1, 1, 2))
        job = self.submit(order, times, times)
        if order.kind == "train" and order.like is not None and self.random.random() < 0.06:
            job.note = "cancelled at some time"
            timer = threading.Timer(self.random.uniform(0.2, 8), self._cancel_later, [job])
            timer.daemon = True
            timer.start()

    def _cancel_later(self, job: Accepted) -> None:
        if not self._stopping.is_set():
            try:
                self.cancel(job)
            except BaseException as error:
                self._error = error

    def open_jobs(self, among: set[str] | None = None) -> list[str]:
        """Accepted jobs that have not ended. Raises OSError where the database is away."""
        from sqlalchemy.exc import SQLAlchemyError

        with self._lock:
            known = set(self.accepted) if among is None else among
        try:
            with self.product.context.database.read() as session:
                query = select(Job.id).where(
                    Job.state.not_in(TERMINAL), Job.parent_id.is_(None), Job.kind != "register"
                )
                return [job_id for job_id in session.scalars(query) if job_id in known]
        except SQLAlchemyError as error:
            raise ConnectionError(str(error)) from error
