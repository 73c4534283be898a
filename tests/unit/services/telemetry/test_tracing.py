"""A job's trace over the queue: kept with its row, gone on with by whichever worker has it, in each attempt."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import insert

from bgpanet.events import Metrics, Progress, Started
from services import jobs, tokens
from services.claims import Claim, NewJob
from services.context import Context
from services.database import Database
from services.order import Offer
from services.settings import Settings
from services.tables import Dataset
from services.telemetry import tracing
from services.web import create_app
from services.worker.watching import Watch
from tests.support.clocked import DATASET, Clock
from tests.support.collector import Collector, collector
from tests.support.databases import make_schema

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
OFFER = Offer(("any", "cpu"))


@pytest.fixture
def traces() -> Iterator[Collector]:
    """Where the spans of this process go; they have come once `tracing.stop` has returned."""
    with collector() as made:
        tracing.start(made.url, "test", "1")
        yield made
        tracing.stop()


def claimed(database: Database) -> Claim:
    claim = jobs.claim(database, "w", OFFER, 30)
    assert claim is not None
    return claim


def test_request_submission_every_attempt_and_its_epochs_are_one_trace(traces: Collector, tmp_path: Path) -> None:
    settings = Settings.load({"BGPANET_HOME": str(tmp_path), "BGPANET_REDIS_URL": "redis://127.0.0.1:1/0"})
    make_schema(settings.database_url)
    database = Context(settings).database
    with database.write() as session:
        counts = [{"class": name, "images": 60, "groups": 30} for name in ("mel", "nv")]
        session.execute(insert(Dataset).values(**DATASET | {"class_counts": counts, "images": 120, "groups": 60}))
    headers = {"Authorization": f"Bearer {tokens.create(database, 'test', 'ada', 'admin')[1]}"}
    headers["traceparent"] = f"00-{TRACE}-{CALLER}-01"
    body = {"kind": "train", "dataset": "lesions", "spec": {"model": "bgpanet_micro"}}
    answer = create_app(settings).test_client().post("/api/v1/jobs", json=body, headers=headers)
    assert answer.status_code == 201, answer.text
    for _ in range(2):
        claim = claimed(database)
        watch = Watch(claim)
        with watch.attempt("w/0"), watch.child():
            watch.heard(Started(step=0))
            watch.heard(Metrics(step=5, epoch=0, values={"train_loss": 1.0}))
            watch.heard(Metrics(step=9, epoch=1, values={"train_loss_of_epoch": 1.0}))
            watch.uploaded(0.5, 9)
        jobs.release(database, claim.lease, "the worker was told to leave")
    tracing.stop()
    assert {span.trace for span in traces.spans} == {TRACE}
    names = [span.name for span in traces.spans]
    each = ["attempt train", "child", "epoch 1", "upload checkpoint"]
    assert sorted(names) == sorted(["POST /api/v1/jobs", "submit train", *each, *each])
    by_id = {span.id: span for span in traces.spans}
    above = {(span.name, by_id[span.parent].name if span.parent != CALLER else "caller") for span in traces.spans}
    assert above == {
        ("POST /api/v1/jobs", "caller"),
        ("submit train", "POST /api/v1/jobs"),
        ("attempt train", "submit train"),
        ("child", "attempt train"),
        ("epoch 1", "child"),
        ("upload checkpoint", "child"),
    }
    attempts = [span.attributes["bgpanet.attempt"] for span in traces.spans if span.name == "attempt train"]
    assert sorted(attempts) == [1, 2]


def test_a_job_of_an_older_version_begins_a_trace_of_its_own(traces: Collector, database: Database) -> None:
    tracing.stop()
    jobs.submit(database, NewJob("train", "a", {}, "d", "ada"))
    tracing.start(traces.url, "test", "1")
    claim = claimed(database)
    assert claim.traceparent is None
    with Watch(claim).attempt("w/0"):
        pass
    tracing.stop()
    (span,) = traces.spans
    assert (span.name, span.parent) == ("attempt train", "")


def test_an_error_marks_its_span_and_goes_on(traces: Collector) -> None:
    with pytest.raises(ZeroDivisionError), tracing.span("fails"):
        raise ZeroDivisionError
    tracing.stop()
    assert [span.name for span in traces.spans] == ["fails"]


def test_while_traces_are_off_nothing_is_stored_and_nothing_fails(database: Database) -> None:
    with tracing.span("nothing", "00-0-0-00"):
        tracing.mark(a=1)
        tracing.was("nothing", 1.0, None)
        assert tracing.current() is None
        jobs.submit(database, NewJob("train", "a", {}, "d", "ada"))
    assert claimed(database).traceparent is None


def test_how_fast_a_training_learns_is_told_by_its_steps(
    database: Database, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs.submit(database, NewJob("train", "a", {"training": {"batch_size": 32}}, "d", "ada"))
    watch, now = Watch(claimed(database)), [0.0]
    monkeypatch.setattr("services.worker.watching.time.monotonic", lambda: now[0])
    with watch.child():
        watch.heard(Started(step=100))
        for seconds, step in ((1, 110), (4, 140)):
            now[0] = seconds
            watch.heard(Progress(fraction=0.5, step=step, epoch=1))
        assert watch.figures == {"images_per_second": (140 - 100) * 32 / 4}
        watch.uploaded(1.5, 140)
    assert watch.figures == {"checkpoint_upload_seconds": 1.5}
