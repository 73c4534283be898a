"""The slots of a worker: one for each GPU, or as many as asked for on CPUs. Each has its own fork server."""

import itertools
import logging
import os
import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from sqlalchemy.exc import SQLAlchemyError

import bgpanet
from services import fleet, jobs
from services.claims import Claim, Lease
from services.context import Context
from services.errors import StaleAttempt
from services.fleet import READY, Condition, Member, Weights
from services.telemetry import logs
from services.worker.child import ForkServer
from services.worker.devices import Device
from services.worker.figures import figures
from services.worker.selftest import problems
from services.worker.supervisor import Attempt, Draining
from services.worker.use import UseMeter
from services.worker.watching import Watch

BEAT_SECONDS = 5.0
CHECK_AGAIN_SECONDS = (10.0, 20.0, 40.0, 80.0, 160.0, 300.0)  # after a self-test that failed; the last one repeats

log = logging.getLogger(__name__)


class Slot:
    """Runs one job at a time. `work` is called for every wake-up and goes on while jobs wait.

    It takes none before it has passed its self-test, which is repeated until then; nor after a job under which its
    device broke, until it has passed again.
    """

    def __init__(
        self,
        context: Context,
        name: str,
        device: Device,
        threads: int,
        weights: Callable[[], Weights],
        labels: Sequence[str] = (),
        leave: Callable[[], None] = lambda: None,
    ) -> None:
        """leave: called when the database tells that its worker is to leave, maybe more than once."""
        self.context, self.device, self.threads, self.weights = context, device, threads, weights
        self.member = Member(
            name=name,
            host=socket.gethostname(),
            pid=os.getpid(),
            version=bgpanet.__version__,
            device=device.name,
            resource_classes=device.resource_classes,
            labels=labels,
            memory_gb=device.memory_gb,
        )
        self._leave = leave
        self.lease: Lease | None = None
        self._watch: Watch | None = None
        self._strange: set[str] = set()  # jobs for a newer version than this
        self.server = ForkServer(device.environment)
        self.condition = Condition("checking")
        self._leaving, self._news, self._fit = threading.Event(), threading.Event(), threading.Event()
        self._beating = threading.Thread(target=self._beat, name=f"beat-{name}", daemon=True)
        self._beating.start()
        self._begin_check()

    def work(self, draining: Draining) -> None:
        """Claims and runs jobs until none waits or the worker drains; whenever the slot is unfit it waits.

        Meanwhile it holds one wake-up, and the scheduler sends others: were it to return, it would take all of them.
        """
        while not draining.is_set():
            if not self._fit.wait(0.1):
                continue
            try:
                claim = jobs.claim(
                    self.context.database,
                    self.member.name,
                    replace(self.member.offer(self.weights()), without=frozenset(self._strange)),
                    self.context.settings.lease_seconds,
                    self.context.settings.running_per_user,
                )
            except SQLAlchemyError as error:
                log.warning("no job could be claimed, the next wake-up tries again: %s", error)
                return
            if claim is None:
                return
            self._busy_with(claim.lease)
            try:
                self._attempt(claim, draining)
            finally:
                self._watch = None
                self._busy_with(None)

    def _attempt(self, claim: Claim, draining: Draining) -> None:
        job_id, number = claim.lease.job_id, claim.lease.attempt
        with logs.belonging_to(job=job_id, attempt=str(number), worker=self.member.name):
            attempt = Attempt(self.context, claim, self.server, self.threads, draining)
            self._watch = attempt.watch
            with attempt.watch.attempt(self.member.name):
                log.info("%s: job %s, attempt %d", self.member.name, job_id, number)
                attempt.run()
            if not attempt.understood:
                self._strange.add(job_id)
            if attempt.broken is not None:
                log.error("%s takes no jobs: device: %s", self.member.name, attempt.broken)
                self._fit.clear()
                self._become(Condition("unfit", f"device: {attempt.broken}"))
                self._begin_check()

    def _busy_with(self, lease: Lease | None) -> None:
        self.lease = lease
        self._news.set()

    def give_back(self) -> None:
        """Gives the present job back, whatever is still under way for it, and forgets the registration."""
        self._leaving.set()
        if (lease := self.lease) is not None:
            try:
                jobs.release(self.context.database, lease, "the worker was told to leave, and had no time left")
            except (SQLAlchemyError, StaleAttempt) as error:
                log.warning("job %s was not given back: %s", lease.job_id, error)
        self._forget()

    def drain(self) -> None:
        """Tells that no more jobs are taken."""
        self._become(Condition("draining", "the worker was told to leave"))

    def _become(self, condition: Condition) -> None:
        if self.condition.state != "draining":
            self.condition = condition
        self._news.set()

    def _begin_check(self) -> None:
        threading.Thread(target=self._check, name=f"check-{self.member.name}", daemon=True).start()

    def _check(self) -> None:
        """Tries again until the slot is fit."""
        for number in itertools.count():
            found = list(problems(self.context, self.server))
            if self._leaving.is_set():
                return
            if not found:
                if number:
                    log.warning("%s is fit now", self.member.name)
                self._become(READY)
                self._fit.set()
                return
            self._become(Condition("unfit", "; ".join(found)))
            log.error("%s takes no jobs: %s", self.member.name, "; ".join(found))
            if self._leaving.wait(CHECK_AGAIN_SECONDS[min(number, len(CHECK_AGAIN_SECONDS) - 1)]):
                return

    def close(self) -> None:
        """Ends the fork server and forgets the registration."""
        self._leaving.set()
        self._news.set()
        self._beating.join()
        self.server.close()
        self._forget()

    def _forget(self) -> None:
        try:
            fleet.leave(self.context.database, self.member.name)
        except SQLAlchemyError as error:
            log.warning("the registration of %s stays until it is forgotten: %s", self.member.name, error)

    def _beat(self) -> None:
        meter, is_first = UseMeter(), True
        while True:
            try:
                told = figures(self.context.settings.home, self.device)
                told |= self._watch.figures if self._watch else {}
                job_id = None if self.lease is None else self.lease.job_id
                use = meter.saw(job_id is not None, told)
                present = (job_id, told, self.weights(), self.condition, use, is_first)
                asked = fleet.beat(self.context.database, self.member, *present)
                is_first = False
                if use is not None:
                    meter.told()
                if asked:
                    self._leave()
            except SQLAlchemyError as error:
                log.warning("%s could not tell that it is there: %s", self.member.name, error)
            self._news.wait(BEAT_SECONDS)
            self._news.clear()
            if self._leaving.is_set():
                return


class SlotPool:
    """Hands out idle slots, those that are fit first."""

    def __init__(self, slots: Sequence[Slot]) -> None:
        self.slots = list(slots)
        self._idle = list(slots)
        self._lock = threading.Lock()

    def work(self, draining: Draining) -> None:
        """Has an idle slot work; nothing where all are busy, since they look for more by themselves."""
        with self._lock:
            slot = min(self._idle, key=lambda idle: idle.condition != READY, default=None)
            if slot is None:
                return
            self._idle.remove(slot)
        try:
            slot.work(draining)
        finally:
            with self._lock:
                self._idle.append(slot)

    def drain(self) -> None:
        for slot in self.slots:
            slot.drain()

    def give_back(self) -> None:
        for slot in self.slots:
            slot.give_back()

    def close(self) -> None:
        with ThreadPoolExecutor(len(self.slots)) as together:
            list(together.map(Slot.close, self.slots))
