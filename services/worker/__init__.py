"""A worker: a Celery process that takes wake-ups, claims jobs and supervises their children. No torch in here."""

import logging
import os
import socket
import threading
from dataclasses import dataclass
from functools import partial

from celery.signals import setup_logging, worker_shutting_down

from services.context import Context
from services.errors import ServiceError
from services.queue import WAKE, queue_name
from services.worker.departure import Departure
from services.worker.devices import find_devices, labels_of
from services.worker.reservation import take_free
from services.worker.slots import Slot, SlotPool
from services.worker.weights import Lookout


@dataclass(frozen=True)
class WorkerOptions:
    """name: unique among workers; slots: None for as many as there are GPUs for, or one on a CPU; gpus_per_slot: a job
    may have so many; threads: of a CPU for each slot; labels: beside those of the settings; free_gpus: only GPUs that
    no other worker of this home has taken so."""

    name: str | None = None
    slots: int | None = None
    gpus_per_slot: int = 1
    threads: int | None = None
    labels: tuple[str, ...] = ()
    free_gpus: bool = False


def run_worker(context: Context, options: WorkerOptions) -> None:
    """Works until SIGTERM or SIGINT: then running children write a checkpoint and their jobs are given back. Soon after
    their grace, or a second signal, it is gone, whatever hangs.

    Raises:
        ValueError: a label is none.
        Conflict: it is to take free GPUs, and there are none.
        ServiceError: it ended without being told to; whatever keeps it going has to start it again.
    """
    name = options.name or f"{socket.gethostname()}-{os.getpid()}"
    choose = None
    if options.free_gpus:
        wanted = None if options.slots is None else options.slots * options.gpus_per_slot
        choose = partial(take_free, folder=context.settings.home / "gpus", wanted=wanted)
    devices = find_devices(options.slots, options.gpus_per_slot, choose)
    threads = options.threads or max(1, (os.cpu_count() or 1) // len(devices))
    labels = [labels_of(name, device, context.settings.worker_labels + options.labels) for device in devices]
    weights = Lookout(context.settings.offline)
    departure = Departure(context.settings.grace_seconds)
    pool = SlotPool(
        [
            Slot(context, f"{name}/{n}", device, threads, weights, labels[n], departure.from_afar)
            for n, device in enumerate(devices)
        ]
    )
    threading.Thread(target=departure.watch, args=(pool.give_back,), name="departure", daemon=True).start()

    @worker_shutting_down.connect(weak=False)  # type: ignore[untyped-decorator]
    def drain(**_: object) -> None:
        departure.ask()
        pool.drain()

    @setup_logging.connect(weak=False)  # type: ignore[untyped-decorator]
    def keep_logs(**_: object) -> None:
        """Celery would raise the level of all loggers; told so, it leaves them as they are."""
        logging.getLogger("celery").setLevel(logging.WARNING)

    @context.celery.task(name=WAKE)  # type: ignore[untyped-decorator]
    def wake() -> None:
        pool.work(departure)

    context.celery.conf.worker_pool = "services.worker.pool:Pool"
    context.celery.conf.worker_consumer = "services.worker.consumer:Consumer"
    classes = sorted({resource_class for device in devices for resource_class in device.resource_classes})
    try:
        context.celery.worker_main(
            [
                "worker",
                f"--concurrency={len(devices)}",
                f"--queues={','.join(map(queue_name, classes))}",
                f"--hostname={name}",
                "--loglevel=WARNING",
                "--without-gossip",
                "--without-mingle",
                "--without-heartbeat",
            ]
        )
        if not departure.is_set():  # Celery logs what it can not go on after, and returns as if all were well
            raise ServiceError("the worker ended without being told to; its log says why")
    finally:
        if not departure.is_set():
            departure.ask()
        weights.close()
        pool.close()
