"""One attempt of a job, from its claim to its end: fetch, start the child, listen, finish.

Four things happen at once: this thread reads the child's events, the lease keeper writes them and renews the lease,
the uploader stores checkpoints, and the child works. Whatever ends the attempt, exactly one function of
`services.jobs` is called for it, under the lease.
"""

import contextlib
import logging
import os
import selectors
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from sqlalchemy.exc import SQLAlchemyError

import bgpanet
from bgpanet.errors import InvalidInput
from bgpanet.events import (
    ArtifactWritten,
    CheckpointWritten,
    Event,
    Failure,
    Log,
    Metrics,
    Progress,
    Result,
    Started,
    Told,
    parse_event,
)
from bgpanet.specs import half_at_once, parse_spec
from services import jobs
from services.claims import Claim, NewArtifact, StoredFile
from services.context import Context
from services.errors import ArtifactMissing, StaleAttempt, StorageError
from services.worker.child import Child, ForkServer, ForkServerGone, Request
from services.worker.files import Uploader, Workbench
from services.worker.lease import LeaseKeeper
from services.worker.selftest import CHECK_SECONDS
from services.worker.watching import Watch

INTERRUPTED = 75  # the child's exit status after it was asked to stop and wrote a checkpoint
EPILOGUE_SECONDS = 120.0  # how long the end of an attempt is tried to be written while the database is away

log = logging.getLogger(__name__)


class Draining(Protocol):
    """True once the worker has been told to leave."""

    def is_set(self) -> bool: ...


class Attempt:
    """Supervises one claimed job. `nudge` may be called from any thread when something changed."""

    def __init__(self, context: Context, claim: Claim, server: ForkServer, threads: int, draining: Draining) -> None:
        self.context, self.claim, self.server, self.threads, self.draining = context, claim, server, threads, draining
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        self.bench = Workbench(context, claim, self._fetching, self._warn)
        settings = context.settings
        self.keeper = LeaseKeeper(context.database, claim.lease, settings.lease_seconds, self.nudge)
        self.watch = Watch(claim)
        self.uploader = Uploader(
            context.store,
            claim,
            self.bench.folder / "uploading",
            self._record_checkpoint,
            self._warn,
            self.watch.uploaded,
        )
        self.result: Result | None = None
        self.failure: Failure | None = None
        self.artifacts: list[ArtifactWritten] = []
        self.stalled = self.timed_out = False
        self.understood = True
        self.broken: str | None = None  # what is wrong with the device, where that ended the attempt
        self._heard_at = time.monotonic()
        self._deadline = None if claim.seconds_left is None else time.monotonic() + claim.seconds_left

    def nudge(self) -> None:
        """Has the supervising thread look at the orders again."""
        with contextlib.suppress(OSError):  # it is awake anyway, or done
            os.write(self._wake_write, b"!")

    def run(self) -> None:
        """Runs the attempt to its end. Never raises for what a job or a service did wrong."""
        self.keeper.start()
        self.uploader.start()
        try:
            end = self._work()
        except (StorageError, ArtifactMissing, OSError) as error:
            end = self._failing("storage", str(error))
        except SQLAlchemyError as error:
            end = self._failing("storage", f"the database did not answer: {error}")
        except ForkServerGone as error:
            self.server.restart()
            end = self._failing("worker_lost", f"the process that starts children was lost: {error}")
        except StaleAttempt:
            end = None
        except _Unwanted:
            end = self._outcome(INTERRUPTED)
        except _NotUnderstood as error:
            self.understood = False
            why = f"a worker of version {bgpanet.__version__} does not understand it: {error}"
            end = partial(jobs.release, self.context.database, self.claim.lease, why)
        except InvalidInput as error:
            told = [Told(level="refused", where=problem.where, what=problem.what) for problem in error.problems]
            end = self._failing(error.reason, str(error), told)
        except Exception as error:
            log.exception("job %s: the supervisor failed", self.claim.lease.job_id)
            end = self._failing("internal", f"supervisor: {type(error).__name__}: {error}")
        try:
            self.uploader.close()
            if end is not None and not self.keeper.lost:
                self._until_written(end)
        finally:
            self.keeper.stop()
            self.bench.remove()
            os.close(self._wake_read)
            os.close(self._wake_write)

    # ── The child ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _work(self) -> Callable[[], None] | None:
        try:
            parse_spec(self.claim.kind, self.claim.spec)
        except InvalidInput as error:  # it was checked when it was accepted, by a newer version
            raise _NotUnderstood(str(error)) from None
        if self.claim.images_at_once is not None:
            images = self.claim.images_at_once
            self._warn(f"an earlier attempt was out of memory: now {images} images at once, the batch in more parts")
        with self.watch.preparing():
            self.bench.prepare()
        child = self.server.start(
            Request(
                self.claim.kind,
                self.bench.spec,
                self.bench.output,
                self.context.settings.cache / "pixels",
                self.threads,
                round(self.context.settings.pixel_cache_gb * 1e9),
            )
        )
        try:
            with self.watch.child():
                status = self._listen(child)
        finally:
            child.signal(signal.SIGKILL)
            child.close()
        return self._outcome(status)

    def _fetching(self, message: str) -> None:
        if self.keeper.lost or self._is_to_stop():
            raise _Unwanted
        self.keeper.progress({"fraction": 0.0, "message": message})

    def _listen(self, child: Child) -> int:
        """Handles events until the child has ended. Returns its exit status, minus a signal's number."""
        asked_at: float | None = None
        status: int | None = None
        self._heard_at = time.monotonic()
        events, text = _Lines(self._event), _Lines(lambda line: self.keeper.log("info", line))
        with selectors.DefaultSelector() as selector:
            for descriptor, lines in ((child.events, events), (child.text, text)):
                selector.register(descriptor, selectors.EVENT_READ, lines)
            selector.register(self._wake_read, selectors.EVENT_READ)
            selector.register(self.server.channel, selectors.EVENT_READ)
            while status is None or len(selector.get_map()) > 2:
                while self.server.has_message:
                    status = self._ended(child, status)
                for key, _ in selector.select(timeout=0.5 if status is None else 0.05):
                    if isinstance(key.data, _Lines):
                        self._heard_at = time.monotonic()
                        if not key.data.read(key.fd):
                            selector.unregister(key.fd)
                    elif key.fd == self._wake_read:
                        os.read(self._wake_read, 4096)
                    else:
                        status = self._ended(child, status)
                asked_at = self._ask(child, asked_at)
                if time.monotonic() - self._heard_at > self.context.settings.stall_seconds:
                    self.stalled = True
                if self.keeper.lost or self.stalled:
                    child.signal(signal.SIGKILL)
        return status

    def _ended(self, child: Child, status: int | None) -> int | None:
        message = self.server.receive(timeout=5.0)
        return int(message["status"]) if message.get("ended") == child.pid else status

    def _ask(self, child: Child, asked_at: float | None) -> float | None:
        """Asks the child to stop where that is wished; kills it when the grace is over."""
        if asked_at is None and self._is_to_stop():
            child.signal(signal.SIGTERM)
            return time.monotonic()
        if asked_at is not None and time.monotonic() - asked_at > self.context.settings.grace_seconds:
            child.signal(signal.SIGKILL)
        return asked_at

    def _is_to_stop(self) -> bool:
        if self._deadline is not None and time.monotonic() > self._deadline:
            self.timed_out = True
        return self.timed_out or self.keeper.cancelled or self.keeper.paused or self.draining.is_set()

    def _event(self, line: str) -> None:
        event = parse_event(line)
        if event is not None:
            self.watch.heard(event)
            self._handle(event)

    def _handle(self, event: Event) -> None:
        keeper, lease = self.keeper, self.claim.lease
        if isinstance(event, Progress):
            keeper.progress(event.model_dump(exclude={"type"}))
        elif isinstance(event, Metrics):
            rows = [{"step": event.step, "epoch": event.epoch, "name": n, "value": v} for n, v in event.values.items()]
            keeper.metrics(rows)
        elif isinstance(event, Log):
            keeper.log(event.level, event.message)
        elif isinstance(event, Started):
            jobs.resumed(self.context.database, lease, event.step)
        elif isinstance(event, CheckpointWritten):
            self.uploader.checkpoint(event)
        elif isinstance(event, ArtifactWritten):
            self.artifacts.append(event)
        elif isinstance(event, Result):
            self.result = event
        elif isinstance(event, Failure):
            self.failure = event

    def _record_checkpoint(self, event: CheckpointWritten, files: Mapping[str, StoredFile]) -> None:
        # First what was said before the checkpoint: a later attempt does not say it again.
        self.keeper.flush()
        lease = self.claim.lease
        superseded = jobs.record_checkpoint(
            self.context.database, lease, event.step, event.epoch, files, kept=event.kept
        )
        self.uploader.drop(superseded)

    def _warn(self, message: str) -> None:
        self.keeper.log("warning", message)

    # ── The end ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _outcome(self, status: int) -> Callable[[], None] | None:
        """What is to be written about an attempt whose child ended with `status`."""
        database, lease = self.context.database, self.claim.lease
        if self.keeper.lost:
            return None
        if status == 0 and self.result is not None:
            summary = self.result.summary
            self.uploader.close()  # from here on nobody else stores or drops files of this attempt
            stored = [self.uploader.artifact(event) for event in self.artifacts]
            return lambda: self._finish(summary, stored)
        if self.keeper.cancelled:
            return lambda: jobs.confirm_cancel(database, lease)
        if self.timed_out:
            return self._failing(
                "time_limit", "its time limit is over; a retry goes on from here, with as much time again"
            )
        if self.keeper.paused:
            return lambda: jobs.release(database, lease, "paused on request")
        if status == INTERRUPTED or self.draining.is_set():
            return lambda: jobs.release(database, lease, "the worker was told to leave")
        if self.stalled:
            seconds = self.context.settings.stall_seconds
            return self._unless_broken("stalled", f"the child said nothing for {seconds:.0f} s and was ended")
        if status < 0 and (self.failure is None or self.failure.reason == "internal"):
            # Of several processes the others complain when one is killed.
            return self._unless_broken("worker_lost", f"the child was ended by signal {-status}")
        if self.failure is not None:
            if self.failure.reason == "storage":
                self.bench.distrust()
            if self.failure.reason in ("internal", "worker_lost"):
                return self._unless_broken(self.failure.reason, self.failure.message)
            return self._failing(self.failure.reason, self.failure.message, self.failure.findings)
        return self._unless_broken("internal", f"the child ended with status {status} and said no more")

    def _unless_broken(self, reason: str, error: str) -> Callable[[], None]:
        """Of an end that nobody foresaw: where the device does not compute any more it is no fault of the job's, which
        another worker is given, and this slot takes none. Else a GPU that fell off its bus would fail all that wait."""
        try:
            self.broken = self.server.check(CHECK_SECONDS)
        except ForkServerGone as silent:
            self.broken = str(silent)
        if self.broken is None:
            return self._failing(reason, error)
        return self._failing("worker_lost", f"{error}; the device does not compute any more: {self.broken}")

    def _finish(self, summary: Mapping[str, Any], stored: Sequence[NewArtifact]) -> None:
        self.uploader.keep_only(jobs.finish(self.context.database, self.claim.lease, summary, stored))

    def _failing(self, reason: str, error: str, findings: Sequence[Told] = ()) -> Callable[[], None]:
        fewer = half_at_once(parse_spec(self.claim.kind, self.claim.spec)) if reason == "out_of_memory" else None
        told = [finding.model_dump() for finding in findings]
        delays = self.context.settings.retry_seconds
        return lambda: jobs.fail(self.context.database, self.claim.lease, reason, error, fewer, told, delays)

    def _until_written(self, end: Callable[[], None]) -> None:
        """Writes the end under the lease that the keeper goes on renewing; the database may be away for a while."""
        deadline = time.monotonic() + EPILOGUE_SECONDS
        while not self.keeper.lost:
            try:
                self.keeper.flush()
                self.keeper.stop()
                end()
                return
            except StaleAttempt:
                log.warning("job %s: its end came under a lost lease and was dropped", self.claim.lease.job_id)
                return
            except SQLAlchemyError as error:
                if time.monotonic() > deadline:
                    log.error("job %s: its end could not be written: %s", self.claim.lease.job_id, error)
                    return
                time.sleep(0.5)


class _NotUnderstood(Exception):
    """The job asks for something that this version does not know."""


class _Unwanted(Exception):
    """The attempt is to end before its child was started."""


class _Lines:
    """Splits what comes out of a descriptor into lines."""

    def __init__(self, handle: Callable[[str], Any]) -> None:
        self._handle, self._rest = handle, b""

    def read(self, descriptor: int) -> bool:
        """Reads what is there. False at the end."""
        part = os.read(descriptor, 65_536)
        *lines, self._rest = (self._rest + part).split(b"\n")
        for line in lines if part else [*lines, self._rest]:
            if text := line.decode("utf-8", "replace").replace("\0", "").strip():
                self._handle(text)
        return bool(part)
