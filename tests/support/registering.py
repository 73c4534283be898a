"""Registering without a worker process: what a worker does with such a job, in this process."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from bgpanet.events import ArtifactWritten, Event, Failure, Result
from bgpanet.runner import Run, execute
from services import datasets, jobs, views
from services.context import Context
from services.datasets import Registration
from services.order import Offer
from services.tokens import Principal
from services.worker.files import Uploader, Workbench

ADA = Principal("ada", "admin")


def register(context: Context, name: str, path: Path, format: str = "ham10000", **more: Any) -> dict[str, Any]:
    """Submits a registration, does its job, and returns what people are shown of the data set then."""
    asked = Registration(name=name, format=format, folder=str(path), **more)
    dataset_id, _ = datasets.register(context, ADA, asked)
    work(context)
    return views.get_dataset(context.database, ADA, dataset_id)


def work(context: Context, between: Callable[[], None] = lambda: None) -> None:
    """Claims the next job, which must be a registration, and runs it; `between` is called before its end is written."""
    claim = jobs.claim(context.database, "in-process", Offer(["any"]), 3600)
    assert claim is not None
    assert claim.kind == "register"
    bench = Workbench(context, claim)
    bench.prepare()
    said: list[Event] = []
    execute(Run("register", bench.spec, bench.output, bench.folder / "cache"), said.append)
    between()
    uploader = Uploader(context.store, claim, bench.folder / "uploading", lambda *_: None, lambda _: None)
    ends = [event for event in said if isinstance(event, (Failure, Result))]
    assert ends, f"it ended without a word: {said}"
    try:
        for event in said:
            if isinstance(event, Failure):
                told = [finding.model_dump() for finding in event.findings]
                jobs.fail(context.database, claim.lease, event.reason, event.message, findings=told)
            elif isinstance(event, Result):
                stored = [uploader.artifact(file) for file in said if isinstance(file, ArtifactWritten)]
                uploader.keep_only(jobs.finish(context.database, claim.lease, event.summary, stored))
    finally:
        bench.remove()
