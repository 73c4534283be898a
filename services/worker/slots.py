"""The slots of a worker: one for each GPU, or as many as asked for on CPUs. Each has its own fork server."""

import logging
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psutil
from sqlalchemy.exc import SQLAlchemyError

import bgpanet
from services import fleet, jobs
from services.context import Context
from services.fleet import Member, Weights
from services.order import Offer
from services.worker.child import ForkServer
from services.worker.supervisor import Attempt

BEAT_SECONDS = 5.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Device:
    """What a slot computes on. `uuid` is the GPU's; None: the CPU."""

    name: str
    uuid: str | None = None

    @property
    def resource_classes(self) -> tuple[str, ...]:
        return ("any", "cpu") if self.uuid is None else ("any", "gpu")

    @property
    def environment(self) -> dict[str, str]:
        # By UUID: numbers mean one card to the driver's tool and may mean another to CUDA.
        return {"CUDA_VISIBLE_DEVICES": self.uuid or ""}


def find_devices(slots: int | None) -> list[Device]:
    """The GPUs of this host that CUDA_VISIBLE_DEVICES leaves visible, else `slots` (or one) times its CPU.

    No torch, no CUDA: the driver's own tool is asked.
    """
    return visible(_gpus(), os.environ.get("CUDA_VISIBLE_DEVICES"))[:slots] or [Device("CPU")] * (slots or 1)


def visible(gpus: Sequence[Device], wanted: str | None) -> list[Device]:
    """Those of all GPUs, in the driver's order, that CUDA_VISIBLE_DEVICES names, by number or the begin of a UUID.

    As in CUDA, what stands behind an entry that names none does not count.
    """
    if wanted is None:
        return list(gpus)
    found: list[Device] = []
    for entry in filter(None, (part.strip() for part in wanted.split(","))):
        named = [gpu for number, gpu in enumerate(gpus) if entry == str(number) or (gpu.uuid or "").startswith(entry)]
        if len(named) != 1:
            break
        found += named
    return found


def _gpus() -> list[Device]:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    answer = subprocess.run(  # noqa: S603
        [tool, "--query-gpu=uuid,name", "--format=csv,noheader"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    lines = answer.stdout.splitlines() if answer.returncode == 0 else []
    rows = [line.split(",", 1) for line in lines if "," in line]
    return [Device(f"{name.strip()}, GPU {number}", uuid.strip()) for number, (uuid, name) in enumerate(rows)]


class Slot:
    """Runs one job at a time. `work` is called for every wake-up and goes on while jobs wait."""

    def __init__(
        self, context: Context, name: str, device: Device, threads: int, weights: Callable[[], Weights]
    ) -> None:
        self.context, self.device, self.threads, self.weights = context, device, threads, weights
        self.member = Member(
            name=name,
            host=socket.gethostname(),
            pid=os.getpid(),
            version=bgpanet.__version__,
            device=device.name,
            resource_classes=device.resource_classes,
        )
        self.job_id: str | None = None
        self.server = ForkServer(device.environment)
        self._leaving, self._news = threading.Event(), threading.Event()
        self._beating = threading.Thread(target=self._beat, name=f"beat-{name}", daemon=True)
        self._beating.start()

    def work(self, draining: threading.Event) -> None:
        """Claims and runs jobs until none waits or the worker drains."""
        while not draining.is_set():
            try:
                claim = jobs.claim(
                    self.context.database,
                    self.member.name,
                    Offer(self.device.resource_classes, self.weights().obtainable),
                    self.context.settings.lease_seconds,
                    self.context.settings.running_per_user,
                )
            except SQLAlchemyError as error:
                log.warning("no job could be claimed, the next wake-up tries again: %s", error)
                return
            if claim is None:
                return
            self._busy_with(claim.lease.job_id)
            log.info("%s: job %s, attempt %d", self.member.name, claim.lease.job_id, claim.lease.attempt)
            try:
                Attempt(self.context, claim, self.server, self.threads, draining).run()
            finally:
                self._busy_with(None)

    def _busy_with(self, job_id: str | None) -> None:
        self.job_id = job_id
        self._news.set()

    def close(self) -> None:
        """Ends the fork server and forgets the registration."""
        self._leaving.set()
        self._news.set()
        self._beating.join()
        self.server.close()
        try:
            fleet.leave(self.context.database, self.member.name)
        except SQLAlchemyError as error:
            log.warning("the registration of %s stays until it is forgotten: %s", self.member.name, error)

    def _beat(self) -> None:
        while True:
            try:
                fleet.beat(self.context.database, self.member, self.job_id, host_figures(), self.weights())
            except SQLAlchemyError as error:
                log.warning("%s could not tell that it is there: %s", self.member.name, error)
            self._news.wait(BEAT_SECONDS)
            self._news.clear()
            if self._leaving.is_set():
                return


class SlotPool:
    """Hands out idle slots."""

    def __init__(self, slots: Sequence[Slot]) -> None:
        self.slots = list(slots)
        self._idle = list(slots)
        self._lock = threading.Lock()

    def work(self, draining: threading.Event) -> None:
        """Has an idle slot work; nothing where all are busy, since they look for more by themselves."""
        with self._lock:
            slot = self._idle.pop() if self._idle else None
        if slot is None:
            return
        try:
            slot.work(draining)
        finally:
            with self._lock:
                self._idle.append(slot)

    def close(self) -> None:
        for slot in self.slots:
            slot.close()


def host_figures() -> dict[str, float]:
    """CPU use in percent since the last call, memory used and total in bytes."""
    memory = psutil.virtual_memory()
    return {"cpu_percent": psutil.cpu_percent(), "memory_used": memory.used, "memory_total": memory.total}
