"""What operators see of one attempt: its spans, how fast it learns, how long its uploads take."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from bgpanet.events import Event, Metrics, Progress, Started
from services.claims import Claim
from services.telemetry import catalogue, metrics, tracing

SPEED_SECONDS = 2.0  # at least, between two looks at how far a training is


class Watch:
    """Hears the events of one attempt. `figures` may be asked from any thread; a slot's heartbeat tells them."""

    def __init__(self, claim: Claim) -> None:
        training = claim.spec.get("training")
        self._images_per_step = training.get("batch_size") if isinstance(training, dict) else None
        self._claim = claim
        self._figures: dict[str, float] = {}
        self._seen: tuple[float, int] | None = None  # when a training was after which step
        self._epoch_began: float | None = None
        self._trace: str | None = None

    @property
    def figures(self) -> dict[str, float]:
        """`images_per_second`, `checkpoint_upload_seconds`, as far as they are known."""
        return dict(self._figures)

    @contextmanager
    def attempt(self, worker: str) -> Iterator[None]:
        """The block is the attempt: a span of the trace in which its job was submitted, whoever claimed it."""
        claim, begun = self._claim, time.monotonic()
        told = {"bgpanet.job": claim.lease.job_id, "bgpanet.attempt": claim.lease.attempt, "bgpanet.worker": worker}
        metrics.count(catalogue.ATTEMPTS, kind=claim.kind)
        with tracing.span(f"attempt {claim.kind}", claim.traceparent, kind="consumer", **told):
            self._trace = tracing.current()
            try:
                yield
            finally:
                metrics.observe(catalogue.ATTEMPT_SECONDS, time.monotonic() - begun, kind=claim.kind)

    @contextmanager
    def preparing(self) -> Iterator[None]:
        """The block fetches what the attempt needs."""
        begun = time.monotonic()
        with tracing.span("prepare"):
            yield
        metrics.observe(catalogue.PREPARE_SECONDS, time.monotonic() - begun, kind=self._claim.kind)

    @contextmanager
    def child(self) -> Iterator[None]:
        """The block is the child's life; its epochs are spans in it."""
        with tracing.span("child"):
            self._trace, before = tracing.current(), self._trace
            try:
                yield
            finally:
                self._trace = before
                self._figures.pop("images_per_second", None)

    def heard(self, event: Event) -> None:
        """Of the child."""
        now = time.monotonic()
        if isinstance(event, Started):
            self._seen, self._epoch_began = (now, event.step), now
        elif isinstance(event, Progress) and event.step is not None:
            self._learned(now, event.step)
        elif isinstance(event, Metrics) and "train_loss_of_epoch" in event.values:
            self._epoch_ended(now, event)

    def _learned(self, now: float, step: int) -> None:
        if self._seen is None or step < self._seen[1]:
            self._seen = (now, step)
        elif now - self._seen[0] >= SPEED_SECONDS:
            if self._images_per_step is not None:
                self._figures["images_per_second"] = (
                    (step - self._seen[1]) * self._images_per_step / (now - self._seen[0])
                )
            self._seen = (now, step)

    def _epoch_ended(self, now: float, event: Metrics) -> None:
        seconds = 0.0 if self._epoch_began is None else now - self._epoch_began
        told = {"bgpanet.epoch": event.epoch, "bgpanet.step": event.step}
        tracing.was(f"epoch {event.epoch}", seconds, self._trace, **told)
        self._epoch_began = now

    def uploaded(self, seconds: float, step: int) -> None:
        """A checkpoint was stored and recorded."""
        self._figures["checkpoint_upload_seconds"] = seconds
        metrics.observe(catalogue.UPLOAD_SECONDS, seconds)
        tracing.was("upload checkpoint", seconds, self._trace, **{"bgpanet.step": step})
