"""A training whose child runs out of memory in earnest: tried once more with half the images at once."""

import json
import resource
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from bgpanet.data import synthetic
from services import jobs, submission, views
from services.context import Context
from services.order import Offer
from services.settings import Settings
from services.submission import Request
from services.tokens import Principal
from services.worker.child import ForkServer
from services.worker.supervisor import Attempt
from tests.support.databases import make_schema
from tests.support.registering import register

ADMIN = Principal("ada", "admin")
BATCH, HALF = 18, 9  # images; all that there are to train
ROOM = 380_000_000  # bytes beside what an idle child has: a batch needs some 450 MB, half of it some 300 MB


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    made = Context(
        Settings.load({"BGPANET_HOME": str(tmp_path / "home"), "BGPANET_REDIS_URL": "redis://127.0.0.1:1/0"})
    )
    make_schema(made.settings.database_url)
    synthetic.draw(tmp_path / "lesions", lesions=60)
    register(made, "lesions", tmp_path / "lesions")
    yield made
    made.database.close()
    made.celery.close()


@pytest.fixture
def server() -> Iterator[ForkServer]:
    made = ForkServer({"MALLOC_ARENA_MAX": "1"})
    yield made
    made.close()


def limit_memory(server: ForkServer) -> None:
    """Gives every child of the server that much room and no more; the kernel refuses the rest."""
    while not server.receive(120).get("ready"):
        pass
    server._ready = True
    assert server._process is not None
    size = psutil.Process(server._process.pid).memory_info().vms + ROOM
    resource.prlimit(server._process.pid, resource.RLIMIT_AS, (size, size))


def run(context: Context, server: ForkServer) -> None:
    claim = jobs.claim(context.database, "w", Offer(["any"]), 60)
    assert claim is not None
    Attempt(context, claim, server, 1, threading.Event()).run()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can limit the memory of another process")
def test_a_training_that_does_not_fit_is_done_in_halves_and_says_so(context: Context, server: ForkServer) -> None:
    training = {"epochs": 1, "batch_size": BATCH, "precision": "fp32"}
    split = {"folds": 2, "validation_folds": 2}
    spec = {"model": "bgpanet_micro", "image_size": 224, "split": split, "training": training}
    job, _ = submission.submit(context, ADMIN, Request("train", "lesions", spec))
    limit_memory(server)
    run(context, server)
    waiting = views.get_job(context.database, ADMIN, job["id"])
    assert (waiting["state"], waiting["reason"], waiting["spec"]) == ("queued", None, job["spec"])
    run(context, server)
    done = views.get_job(context.database, ADMIN, job["id"])
    assert (done["state"], done["spec"]) == ("succeeded", job["spec"]), done["error"]
    attempts = views.list_attempts(context.database, ADMIN, job["id"])
    told = [(attempt["outcome"], attempt["images_at_once"]) for attempt in attempts]
    assert told == [("out_of_memory", None), ("succeeded", HALF)]
    details = [event["detail"] for event in views.list_events(context.database, ADMIN, job["id"])]
    assert any(f"{BATCH} images at once do not fit" in text and f"with {HALF} images" in text for text in details)
    lines = [line["message"] for line in views.list_logs(context.database, ADMIN, job["id"])]
    assert any(f"{HALF} images at once" in line for line in lines)
    artifact = views.get_artifact(context.database, ADMIN, job["id"], "report.json")
    path = context.store.local_path(artifact.key)
    assert path is not None
    report = json.loads(path.read_text())
    assert report["images_at_once"] == [{"after_step": 0, "images": HALF}]
    assert report["spec"]["training"]["batch_size"] == BATCH
