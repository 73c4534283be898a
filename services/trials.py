"""Trying a model on a few images: a worker answers through the queue while the request waits.

Nothing of it stays: images are cleaned before they are stored, for as long as the answer takes; the job is in no list,
tells no webhook, and is forgotten with its answer. What a process that died has left is swept away soon after.
"""

import base64
import hashlib
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from bgpanet.data.cleaning import clean
from bgpanet.errors import InvalidInput, Problem
from bgpanet.specs import MOST_TRIED, TrialSpec, TriedImageSpec
from services import jobs, models, queue, submission
from services.claims import NewJob
from services.context import Context
from services.database import now_ms
from services.errors import Busy, NoAnswer
from services.ids import new_id
from services.tables import TERMINAL, Artifact, Job
from services.tokens import Principal

if TYPE_CHECKING:  # a worker sweeps without a web server's packages
    from werkzeug.datastructures import FileStorage

KIND, PREFIX = "trial", "trials/"
MOST_IMAGE_BYTES = 20_000_000
MOST_FORM_BYTES = MOST_TRIED * MOST_IMAGE_BYTES
PRIORITY = 1000  # seconds of work for which a person waits
LOOK_SECONDS = 0.05
AT_ONCE = 4  # requests of a process that wait, so that others have threads
LEFT_SECONDS = 900.0  # after which whoever asked is gone

_places = threading.BoundedSemaphore(AT_ONCE)


@dataclass(frozen=True)
class Sent:
    """An image as it came."""

    name: str
    content: bytes


@dataclass(frozen=True)
class Asked:
    """What is to be told of the images. explained: the class that overlays are of; None: the predicted one."""

    overlays: bool = False
    explained: str | None = None
    seconds: int = 30


def problems_of(files: Sequence["FileStorage"]) -> list[Problem]:
    """What is wrong with the files that came with a form."""
    if not files:
        return [Problem("images", f"is missing: send up to {MOST_TRIED} files as multipart/form-data")]
    if len(files) > MOST_TRIED:
        return [Problem("images", f"are {len(files)}; {MOST_TRIED} at most, and a job takes any number")]
    return []


def sent(files: Sequence["FileStorage"]) -> Iterator[Sent]:
    """The images of a form, with names that can be shown; each is read only when it is looked at."""
    for number, file in enumerate(files):
        name = (file.filename or f"image {number}").replace("\0", "")[:200]
        yield Sent(name, file.read(MOST_IMAGE_BYTES + 1))


def try_out(
    context: Context, principal: Principal, reference: str, images: Iterable[Sent], asked: Asked
) -> dict[str, Any]:
    """The answer for every image, in order; one that can't be used has an `error` instead.

    Raises:
        InvalidInput: the model can't be asked so.
        NotFound, Conflict: there is no such model that could be used.
        Busy: as many wait as may.
        NoAnswer: no worker answered in time, or it failed.
    """
    chosen = models.choose(context.database, principal, reference)
    classes = [*chosen.card.get("classes", [])]
    if asked.explained is not None and asked.explained not in classes:
        raise InvalidInput.one("explained", f"{asked.explained!r} is none of {', '.join(classes)}")
    if asked.overlays and chosen.members > 1:
        what = f"are of one network, and {chosen.name} is {chosen.members} that answer together"
        raise InvalidInput.one("overlays", what)
    # Before an image is read: large forms lie on disk until then, and only so many are in memory at a time.
    if not _places.acquire(blocking=False):
        raise Busy(f"{AT_ONCE} trials wait for their answers already; try again in a moment")
    try:
        rows = _tried(context, principal, chosen, images, asked)
    finally:
        _places.release()
    return {
        "model": chosen.name,
        "model_version_id": chosen.id,
        "classes": classes,
        "members": chosen.members,
        "synthetic": bool(chosen.card.get("synthetic")),
        "images": rows,
        "intended_use": models.INTENDED_USE,
    }


def _tried(
    context: Context, principal: Principal, chosen: models.Chosen, images: Iterable[Sent], asked: Asked
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    usable: dict[int, bytes] = {}
    for number, image in enumerate(images):
        problem, content = _checked(image.content)
        rows.append({**_nothing(image.name), "error": problem})
        if problem is None:
            usable[number] = content
    if usable:
        answered = _answered(context, principal, chosen, usable, asked)
        for number, row in zip(usable, answered, strict=True):
            rows[number] = {**row, "name": rows[number]["name"]}
    return rows


def _nothing(name: str) -> dict[str, Any]:
    fields = ("error", "predicted", "probabilities", "disagreement", "explained", "overlay")
    return {"name": name, **dict.fromkeys(fields)}


def _checked(content: bytes) -> tuple[str | None, bytes]:
    """What is wrong with an image, and what of it may be stored: its pixels alone."""
    if not content:
        return "is empty", b""
    if len(content) > MOST_IMAGE_BYTES:
        return f"has more than {MOST_IMAGE_BYTES} bytes", b""
    cleaned = clean(content)
    if cleaned.format is None:
        return "is no image that could be used: send JPEG, PNG, TIFF, BMP or WebP", b""
    return None, cleaned.content


def _answered(
    context: Context, principal: Principal, chosen: models.Chosen, usable: dict[int, bytes], asked: Asked
) -> list[dict[str, Any]]:
    deadline = time.monotonic() + asked.seconds
    trial_id = new_id()
    job_id: str | None = None
    try:
        spec = TrialSpec(
            model=chosen.name,
            images=tuple(_stored(context, f"{PREFIX}{trial_id}/{number}", usable[number]) for number in usable),
            overlays=asked.overlays,
            explained=asked.explained,
        )
        new = NewJob(
            kind=KIND,
            name=f"try {chosen.name}",
            spec=spec.model_dump(mode="json"),
            dataset_id=None,
            created_by=principal.user,
            model_version_id=chosen.id,
            priority=PRIORITY,
            time_limit=asked.seconds,
            max_attempts=1,
        )
        job_id, _ = jobs.submit(context.database, new, submission.limits(context))
        queue.publish(context.celery, new.resource_class)
        summary = _waited(context, job_id, deadline, asked.seconds)
        return [_row(context, job_id, row) for row in summary["images"]]
    finally:
        if job_id is not None:
            jobs.cancel(context.database, job_id)
            _forget(context, job_id)
        for number in usable:
            context.store.delete(f"{PREFIX}{trial_id}/{number}")


def _stored(context: Context, key: str, content: bytes) -> TriedImageSpec:
    sha256 = hashlib.sha256(content).hexdigest()
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        context.store.put_file(key, Path(file.name), sha256)
    # Its own name may tell of a person, and no worker needs it.
    return TriedImageSpec(name=key.rpartition("/")[2], file=key, sha256=sha256)


def _waited(context: Context, job_id: str, deadline: float, seconds: int) -> dict[str, Any]:
    """The job's summary. Raises InvalidInput, NoAnswer."""
    look = select(Job.state, Job.reason, Job.error, Job.summary).where(Job.id == job_id)
    while True:
        with context.database.read() as session:
            job = session.execute(look).one()
        if job.state == "succeeded":
            return dict(job.summary)
        if job.state in TERMINAL and job.reason == "invalid_input":
            raise InvalidInput.one("model", str(job.error))
        if job.state in TERMINAL:
            raise NoAnswer(f"the worker that tried it failed: {job.error or job.state}")
        if time.monotonic() > deadline:
            what = "a worker did not answer" if job.state == "running" else "no worker was free"
            raise NoAnswer(f"{what} within {seconds} s; try again, or submit a job, which waits")
        time.sleep(LOOK_SECONDS)


def _row(context: Context, job_id: str, row: dict[str, Any]) -> dict[str, Any]:
    """An image's answer with its overlay as an address that holds the picture itself."""
    made = {**_nothing(""), **row}
    if row["overlay"] is not None:
        with context.database.read() as session:
            key = session.scalars(
                select(Artifact.key).where(Artifact.job_id == job_id, Artifact.name == row["overlay"])
            ).one()
        with context.store.open(key) as stream:
            made["overlay"] = "data:image/png;base64," + base64.b64encode(stream.read()).decode()
    return made


def _forget(context: Context, job_id: str) -> bool:
    """Deletes a trial that has ended, rows and files. False: a worker still has it."""
    with context.database.write() as session:
        state = session.scalar(select(Job.state).where(Job.id == job_id))
        if state is not None and state not in TERMINAL:
            return False
        jobs.forget(session, [job_id])
    for key in [*context.store.keys(f"jobs/{job_id}/")]:
        context.store.delete(key)
    return True


def sweep(context: Context) -> Iterator[None]:
    """Deletes what is left of trials whose request is gone; asked to stop between small steps. Raises StorageError."""
    old = select(Job.id).where(Job.kind == KIND, Job.created_at < now_ms() - round(LEFT_SECONDS * 1000))
    with context.database.read() as session:
        left = session.scalars(old).all()
    for job_id in left:
        jobs.cancel(context.database, job_id)
        _forget(context, job_id)
        yield
    for page in context.store.pages(PREFIX):
        for file in page:
            if file.age_seconds > LEFT_SECONDS:
                context.store.delete(file.key)
                yield
