"""Whether anything was lost, doubled or stale: asked of SQL and the store, while faults come and when all is over."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from sqlalchemy import select

from services.database import Database
from services.tables import TERMINAL, Artifact, Attempt, Checkpoint, Job, LogLine, Metric, Transition

if TYPE_CHECKING:
    from services.artifacts import ArtifactStore
    from tests.chaos.load import Accepted

SAME_BITS = ("model.safetensors", "predictions.parquet", "predictions.csv")
"""Files of a result in which no time and no host is written."""
MAY_FOLLOW = {
    None: {"queued"},
    "queued": {"running", "paused", "cancelled", "failed"},
    "running": {"queued", "paused", "succeeded", "failed", "cancelled", "running"},
    "paused": {"queued", "cancelled"},
}
"""What may come after a state. `running` twice: a parent, whose children work first, and that is then claimed."""


@dataclass(frozen=True)
class Fingerprint:
    """What is the same for the same job, however it came about: digests of files and every figure at every step."""

    files: Mapping[str, str]
    figures: frozenset[tuple[str, int, float]]
    children: tuple["Fingerprint", ...] = ()

    def difference(self, other: "Fingerprint") -> str | None:
        """In what the other one differs; None: in nothing."""
        if self.files != other.files:
            names = sorted({*self.files, *other.files})
            return f"other files: {[name for name in names if self.files.get(name) != other.files.get(name)]}"
        if self.figures != other.figures:
            strange = sorted(self.figures ^ other.figures)
            return f"{len(strange)} other figures, such as {strange[0]}"
        if len(self.children) != len(other.children):
            return f"{len(other.children)} children instead of {len(self.children)}"
        for number, (mine, theirs) in enumerate(zip(self.children, other.children, strict=True)):
            if (found := mine.difference(theirs)) is not None:
                return f"child {number}: {found}"
        return None


def fingerprint(database: Database, job_id: str) -> Fingerprint:
    """A finished job's."""
    with database.read() as session:
        files = session.execute(
            select(Artifact.name, Artifact.sha256).where(Artifact.job_id == job_id, Artifact.name.in_(SAME_BITS))
        ).all()
        figures = session.execute(select(Metric.name, Metric.step, Metric.value).where(Metric.job_id == job_id)).all()
        children = session.scalars(select(Job.id).where(Job.parent_id == job_id).order_by(Job.position)).all()
    return Fingerprint(
        {name: sha256 for name, sha256 in files},
        frozenset((name, step, value) for name, step, value in figures),
        tuple(fingerprint(database, child) for child in children),
    )


@dataclass
class Findings:
    """What is wrong, by the promise that it breaks, and counts of what was looked at."""

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)
    compared: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)

    @property
    def all(self) -> list[str]:
        return [*self.lost, *self.doubled, *self.stale, *self.other]


class Witness:
    """Looks at the jobs while faults come: what has ended stays as it is."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._ended: dict[str, tuple[str, str | None, int | None]] = {}
        self.broken: list[str] = []

    def look(self) -> None:
        """Raises SQLAlchemyError where the database is away."""
        with self._database.read() as session:
            query = select(Job.id, Job.state, Job.reason, Job.finished_at).where(Job.state.in_(TERMINAL))
            for job_id, state, reason, at in session.execute(query):
                end = (state, reason, at)
                known = self._ended.setdefault(job_id, end)
                if known != end:
                    self.broken.append(f"job {job_id} had ended as {known} and is now {end}")
                    self._ended[job_id] = end


def judge(
    database: Database, store: "ArtifactStore", accepted: Iterable["Accepted"], references: Mapping[str, Fingerprint]
) -> Findings:
    """Looks at every job, attempt, row and file once all is quiet."""
    found = Findings()
    for job in accepted:
        with database.read() as session:
            row = session.get(Job, job.id)
        if row is None:
            found.lost.append(f"job {job.id} was accepted and is not there")
            continue
        end = row.reason or "failed" if row.state == "failed" else row.state
        found.ends[end] += 1
        if row.state not in TERMINAL:
            found.lost.append(f"job {job.id} ({job.order.kind}) has not ended: it is {row.state}")
        elif end not in job.ends:
            why = f"{job.note or 'undisturbed by itself'}; {row.error}"
            found.lost.append(f"job {job.id} ({job.order.kind}) ended as {end}, not {sorted(job.ends)}: {why}")
        elif row.state == "succeeded" and job.order.like is not None:
            found.compared += 1
            difference = references[job.order.like].difference(fingerprint(database, job.id))
            if difference is not None:
                found.other.append(f"job {job.id} ({job.order.like}) is not the undisturbed one: {difference}")
    _attempts(database, found)
    _transitions(database, found)
    _written_late(database, found)
    _files(database, store, found)
    return found


def _attempts(database: Database, found: Findings) -> None:
    with database.read() as session:
        jobs = {job.id: job for job in session.scalars(select(Job))}
        attempts = session.scalars(select(Attempt).order_by(Attempt.job_id, Attempt.number)).all()
        artifacts = session.execute(select(Artifact.job_id, Artifact.name, Artifact.attempt)).all()
    by_job: dict[str, list[Attempt]] = {}
    for attempt in attempts:
        found.outcomes[str(attempt.outcome)] += 1
        by_job.setdefault(attempt.job_id, []).append(attempt)
    for job_id, job in jobs.items():
        mine = by_job.get(job_id, [])
        numbers = [attempt.number for attempt in mine]
        if numbers != list(range(1, job.attempt + 1)):
            found.other.append(f"job {job_id} has attempts {numbers}, and {job.attempt} were counted")
        succeeded = [attempt.number for attempt in mine if attempt.outcome == "succeeded"]
        if len(succeeded) > 1:
            found.doubled.append(f"attempts {succeeded} of job {job_id} succeeded")
        if (job.state == "succeeded") != bool(succeeded):
            found.doubled.append(f"job {job_id} is {job.state}, and attempts {succeeded} of it succeeded")
        if succeeded and succeeded[-1] != job.attempt:
            found.doubled.append(f"job {job_id} was claimed again after attempt {succeeded[-1]} had succeeded")
        still = [attempt.number for attempt in mine if attempt.ended_at is None]
        if job.state in TERMINAL and still:
            found.other.append(f"job {job_id} has ended, and attempts {still} of it have not")
        _overlaps(job_id, mine, found)
    for job_id, name, number in artifacts:
        job = jobs[job_id]
        if job.state != "succeeded" or number != job.attempt:
            found.stale.append(f"{name} of job {job_id} ({job.state}, attempt {job.attempt}) is of attempt {number}")


def _overlaps(job_id: str, attempts: Sequence[Attempt], found: Findings) -> None:
    for before, after in pairwise(attempts):
        if before.ended_at is None or before.ended_at > after.started_at:
            found.doubled.append(f"attempt {after.number} of job {job_id} began before the one before it had ended")


def _transitions(database: Database, found: Findings) -> None:
    with database.read() as session:
        rows = session.execute(select(Transition.job_id, Transition.state).order_by(Transition.id)).all()
        states = {job_id: state for job_id, state in session.execute(select(Job.id, Job.state))}
    last: dict[str, str] = {}
    for job_id, state in rows:
        if state not in MAY_FOLLOW.get(last.get(job_id), set()):
            found.other.append(f"job {job_id} went from {last.get(job_id)} to {state}")
        last[job_id] = state
    for job_id, state in states.items():
        if last.get(job_id) != state:
            found.other.append(f"job {job_id} is {state}, and its history ends with {last.get(job_id)}")


def _written_late(database: Database, found: Findings) -> None:
    """Rows that carry their attempt: none is younger than its end."""
    with database.read() as session:
        for table, at in ((LogLine, LogLine.at), (Checkpoint, Checkpoint.created_at)):
            late = (
                select(table.job_id, table.attempt, at, Attempt.ended_at)
                .join(Attempt, (Attempt.job_id == table.job_id) & (Attempt.number == table.attempt))
                .where(at > Attempt.ended_at)
            )
            for job_id, number, written, ended in session.execute(late):
                what = f"{written - (ended or 0)} ms after attempt {number} of job {job_id} had ended"
                found.stale.append(f"a row of {table.__tablename__} was written {what}")


def _files(database: Database, store: "ArtifactStore", found: Findings) -> None:
    """Everything that a row names is there, and of a job that succeeded nothing else."""
    with database.read() as session:
        artifacts = session.execute(select(Artifact.job_id, Artifact.name, Artifact.key)).all()
        checkpoints = session.execute(select(Checkpoint.job_id, Checkpoint.step, Checkpoint.files)).all()
        states = {job_id: state for job_id, state in session.execute(select(Job.id, Job.state))}
    there = set(store.keys("jobs/"))
    for job_id, name, key in artifacts:
        if key not in there:
            found.lost.append(f"{name} of job {job_id} is not in the store: {key}")
    for job_id, step, files in checkpoints:
        if states[job_id] in ("queued", "running", "paused"):
            missing = [name for name, file in files.items() if file["key"] not in there]
            if missing:
                found.lost.append(f"checkpoint {step} of job {job_id} lacks {missing}")
