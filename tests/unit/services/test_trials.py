"""Trying a model on images: what is answered, and that nothing of it stays. A thread stands in for the worker."""

import io
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from sqlalchemy import func, insert, select

from bgpanet.errors import InvalidInput
from services import jobs, models, retention, trials, views
from services.claims import Claim, NewArtifact
from services.context import Context
from services.errors import Busy, NoAnswer, NotFound
from services.models import Wanted
from services.order import Offer
from services.settings import Settings
from services.tables import Attempt, Dataset, Job, Transition
from services.tokens import Principal
from services.trials import Asked, Sent
from tests.support.clocked import DATASET
from tests.support.databases import make_schema
from tests.support.trained import store, trained

ADA, BOB = Principal("ada", "researcher"), Principal("bob", "researcher")


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    """With a registered model `lesions`."""
    settings = Settings.load({"BGPANET_HOME": str(tmp_path), "BGPANET_REDIS_URL": "redis://127.0.0.1:1/0"})
    made = Context(settings)
    make_schema(made.database.url)
    with made.database.write() as session:
        session.execute(insert(Dataset).values(**DATASET))
    models.register(made, ADA, Wanted("lesions", trained(made, "ada")))
    yield made
    made.database.close()
    made.celery.close()


def jpeg(text: str = "") -> bytes:
    exif = Image.Exif()
    exif[0x010E] = text
    file = io.BytesIO()
    Image.new("RGB", (40, 40), (200, 150, 140)).save(file, "JPEG", exif=exif)
    return file.getvalue()


class Worker(threading.Thread):
    """Answers the next trial; keeps what it was given, and what people saw of it meanwhile."""

    def __init__(self, context: Context, fails: bool = False) -> None:
        super().__init__()
        self.context, self.fails = context, fails
        self.images: list[bytes] = []
        self.spec: dict[str, Any] = {}
        self.seen: list[object] = []

    def run(self) -> None:
        claim = None
        while claim is None:
            time.sleep(0.01)  # others want to write, too
            claim = jobs.claim(self.context.database, "w", Offer(["any"]), 30)
        self.spec = claim.spec
        for image in claim.spec["images"]:
            with self.context.store.open(image["file"]) as stream:
                self.images.append(stream.read())
        self.seen = [*views.list_jobs(self.context.database, ADA, views.JobFilter(kind="trial")).items]
        with pytest.raises(NotFound):
            views.get_job(self.context.database, ADA, claim.lease.job_id)
        if self.fails:
            jobs.fail(self.context.database, claim.lease, "internal", "it broke")
            return
        rows: list[dict[str, Any]] = [
            {"predicted": "nv", "probabilities": {"mel": 0.1, "nv": 0.9}, "error": None, "overlay": f"overlay-{n}.png"}
            for n in range(len(self.images))
        ]
        files = [
            NewArtifact(
                row["overlay"], "image/png", store(self.context, f"jobs/{claim.lease.job_id}/1/{n}", b"picture")
            )
            for n, row in enumerate(rows)
        ]
        jobs.finish(self.context.database, claim.lease, {"images": rows}, files)


def left(context: Context) -> tuple[int, list[str]]:
    """Trials that the database knows, and files that they have left."""
    with context.database.read() as session:
        known = session.scalars(select(Job.id)).all()
        strange = [
            session.scalar(select(func.count()).select_from(table).where(table.job_id.not_in(known)))
            for table in (Attempt, Transition)
        ]
        rows = session.scalar(select(func.count()).select_from(Job).where(Job.kind == "trial")) or 0
    assert strange == [0, 0]
    files = [key for key in context.store.keys("") if key.startswith("trials/") or content(context, key) == b"picture"]
    return rows, files


def content(context: Context, key: str) -> bytes:
    with context.store.open(key) as stream:
        return stream.read()


def test_a_worker_gets_images_without_their_metadata_and_names_and_nothing_of_them_stays(context: Context) -> None:
    worker = Worker(context)
    worker.start()
    images = [Sent("Jane Doe.jpg", jpeg("Jane Doe, born 1970")), Sent("text.jpg", b"hello"), Sent("none.jpg", b"")]
    answer = trials.try_out(context, ADA, "lesions", images, Asked(overlays=True))
    worker.join()
    assert answer["model"] == "lesions@1"
    assert "no diagnosis" in answer["intended_use"]
    first, second, third = answer["images"]
    assert (first["name"], first["predicted"], first["error"]) == ("Jane Doe.jpg", "nv", None)
    assert first["overlay"] == "data:image/png;base64,cGljdHVyZQ=="
    assert "no image" in second["error"]
    assert "empty" in third["error"]
    assert second["probabilities"] is third["probabilities"] is None
    assert len(worker.images) == 1
    assert b"Jane" not in worker.images[0]
    assert "Jane" not in str(worker.spec)
    assert worker.seen == []
    assert left(context) == (0, [])


def test_images_of_which_none_can_be_used_are_answered_without_a_worker(context: Context) -> None:
    answer = trials.try_out(context, ADA, "lesions", [Sent("a", b"hello")], Asked(seconds=1))
    assert answer["images"][0]["error"]


def test_without_a_worker_nothing_is_answered_and_nothing_stays(context: Context) -> None:
    with pytest.raises(NoAnswer, match="no worker was free within 0 s"):
        trials.try_out(context, ADA, "lesions", [Sent("a.jpg", jpeg())], Asked(seconds=0))
    assert left(context) == (0, [])


def test_a_worker_that_fails_is_told_of_and_nothing_stays(context: Context) -> None:
    worker = Worker(context, fails=True)
    worker.start()
    with pytest.raises(NoAnswer, match="it broke"):
        trials.try_out(context, ADA, "lesions", [Sent("a.jpg", jpeg())], Asked())
    worker.join()
    assert left(context) == (0, [])


def test_what_a_worker_still_has_is_swept_away_later(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    claims: list[Claim] = []

    def take(*_: object) -> None:
        claims.extend(filter(None, [jobs.claim(context.database, "w", Offer(["any"]), 30)]))

    monkeypatch.setattr("services.queue.publish", take)
    with pytest.raises(NoAnswer, match="a worker did not answer"):
        trials.try_out(context, ADA, "lesions", [Sent("a.jpg", jpeg())], Asked(seconds=0))
    assert left(context) == (1, [])
    jobs.confirm_cancel(context.database, claims[0].lease)
    retention.sweep(context)
    assert left(context)[0] == 1
    monkeypatch.setattr(trials, "LEFT_SECONDS", 0.0)
    store(context, "trials/dead/0", b"picture")
    os.utime(context.store.local_path("trials/dead/0") or "", (1, 1))
    time.sleep(0.01)
    retention.sweep(context)
    assert left(context) == (0, [])


def test_what_cannot_be_asked_is_refused_before_an_image_is_stored(context: Context) -> None:
    sent = [Sent("a.jpg", jpeg())]
    with pytest.raises(InvalidInput, match="'scc' is none of mel, nv"):
        trials.try_out(context, ADA, "lesions", sent, Asked(explained="scc"))
    with pytest.raises(NotFound):
        trials.try_out(context, BOB, "lesions", sent, Asked())
    held = [trials._places.acquire(blocking=False) for _ in range(trials.AT_ONCE)]
    try:
        assert all(held)
        with pytest.raises(Busy):
            trials.try_out(context, ADA, "lesions", sent, Asked())
    finally:
        for _ in held:
            trials._places.release()
    assert left(context) == (0, [])
