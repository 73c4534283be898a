"""What is kept how long: checkpoints and logs of ended jobs, files in storage that nothing names.

Rows go first; the files that only they named go by a later sweep, as orphans. Only here and by their own attempts are
files of jobs deleted. Every step is small, may be done twice and by two at once, and a sweep that was cut off is
simply begun again.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import and_, delete, select

from services import fleet_use, trials
from services.artifacts import Listed
from services.context import Context
from services.database import Database, now_ms
from services.tables import TERMINAL, Artifact, Checkpoint, Dataset, Job, LogLine, ModelVersion, Upload

YOUNG_SECONDS = 3600.0  # a file that is younger may be about to be named
DEAD_SECONDS = 24 * 3600.0  # of temporary files and unfinished parts
JOBS_AT_ONCE = 100
LINES_AT_ONCE = 1000
FILES_AT_ONCE = 200  # between the last look whether something names them and their deletion
DAY_MS = 24 * 3600 * 1000

log = logging.getLogger(__name__)


@dataclass
class Swept:
    """What a sweep has deleted so far."""

    orphans: int = 0
    leftovers: int = 0
    bytes: int = 0
    checkpoints: int = 0
    lines: int = 0
    minutes: int = 0  # of workers

    def __str__(self) -> str:
        files = f"{self.orphans} files that nothing named and {self.leftovers} of writes that died"
        rows = f"{self.lines} old log lines, {self.minutes} old minutes of workers"
        return f"{files} ({self.bytes} bytes), {self.checkpoints} checkpoints of ended jobs, {rows}"


def sweep(context: Context, go_on: Callable[[], bool] = lambda: True) -> Swept:
    """Deletes what has had its time, until all is done or `go_on` says no; it is asked between small steps.

    Files go before rows: a retry that is naming a checkpoint at this moment has until the next sweep to do so.

    Raises:
        StorageError, SQLAlchemyError: the rest is left to the next sweep.
    """
    swept = Swept()
    try:
        for steps in (_trials, _orphans, _leftovers, _checkpoints, _lines, _minutes):
            for _ in steps(context, swept):
                if not go_on():
                    return swept
    finally:
        if swept != Swept():
            log.info("deleted %s", swept)
    return swept


# ── Files ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _orphans(context: Context, swept: Swept) -> Iterator[None]:
    """Files under `jobs/` that no row names, found page by page."""
    for page in context.store.pages("jobs/"):
        old = [file for file in page if file.age_seconds > YOUNG_SECONDS]
        yield
        suspects = _without_artifact(context.database, old)
        for first in range(0, len(suspects), FILES_AT_ONCE):
            for file in orphans(context.database, suspects[first : first + FILES_AT_ONCE]):
                context.store.delete(file.key)
                swept.orphans += 1
                swept.bytes += file.size
                yield


def _without_artifact(database: Database, files: Sequence[Listed]) -> list[Listed]:
    """A first, quick look: most files are results, which an index finds."""
    with database.read() as session:
        named = set(session.scalars(select(Artifact.key).where(Artifact.key.in_([file.key for file in files]))))
    return [file for file in files if file.key not in named]


def orphans(database: Database, files: Sequence[Listed]) -> list[Listed]:
    """Those of the files that nothing names and nothing will: no artifact, checkpoint, data set or registered model.

    Whether a file's attempt still runs is asked before whether it is named. An attempt that ends in between has named
    what it wanted by then; asked the other way round, the files of a job that just succeeded would be deleted.
    """
    keys = {file.key for file in files}
    with database.read() as session:
        attempts = {key: attempt for key in keys if (attempt := _attempt_of(key)) is not None}
        ids = {job_id for job_id, _ in attempts.values()}
        query = select(Job.id, Job.attempt).where(Job.id.in_(ids), Job.state == "running")
        running = {(row.id, row.attempt) for row in session.execute(query)}
    spared = {key for key in keys if attempts.get(key) in running}
    spared |= keys - set(attempts)  # not written by an attempt: not ours to judge
    with database.read(in_parts=True) as session:
        spared |= set(session.scalars(select(Artifact.key).where(Artifact.key.in_(keys))))
        for column in (Checkpoint.files, Dataset.files, ModelVersion.files):
            for named in session.scalars(select(column).execution_options(yield_per=500)):
                spared |= keys & {str(file["key"]) for file in named.values()}
    return [file for file in files if file.key not in spared]


def _attempt_of(key: str) -> tuple[str, int] | None:
    """(job, attempt) that wrote a file, by its key `jobs/<job>/<attempt>/<sha256>`."""
    match key.split("/"):
        case ["jobs", job_id, attempt, _] if attempt.isdecimal():
            return job_id, int(attempt)
    return None


def _trials(context: Context, swept: Swept) -> Iterator[None]:
    """What is left of trials whose request is gone, images first of all."""
    for _ in trials.sweep(context):
        swept.leftovers += 1
        yield


def _leftovers(context: Context, swept: Swept) -> Iterator[None]:
    """What writes left in the store that died; uploads of people have their own time (`services.uploads`)."""
    with context.database.read() as session:
        wanted = set(session.scalars(select(Upload.parts_id)))
    for size in context.store.drop_leftovers(DEAD_SECONDS, wanted):
        swept.leftovers += 1
        swept.bytes += size
        yield


# ── Rows ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _checkpoints(context: Context, swept: Swept) -> Iterator[None]:
    """Checkpoints of jobs that ended long ago. The jobs are held meanwhile: a retry comes before or after."""
    has_some = select(Checkpoint.step).where(Checkpoint.job_id == Job.id).exists()
    ended = and_(
        Job.state.in_(TERMINAL), Job.finished_at < now_ms() - round(context.settings.keep_failed_days * DAY_MS)
    )
    chosen = select(Job.id).where(ended, has_some).limit(JOBS_AT_ONCE).with_for_update(skip_locked=True, of=Job)
    while True:
        with context.database.write() as session:
            ids = session.scalars(chosen).all()
            gone = delete(Checkpoint).where(Checkpoint.job_id.in_(ids)).returning(Checkpoint.step)
            swept.checkpoints += len(session.scalars(gone).all())
        if not ids:
            return
        yield


def _lines(context: Context, swept: Swept) -> Iterator[None]:
    """Log lines of jobs that ended long ago; figures, history and attempts stay."""
    has_some = select(LogLine.id).where(LogLine.job_id == Job.id).exists()
    ended = and_(Job.state.in_(TERMINAL), Job.finished_at < now_ms() - round(context.settings.keep_logs_days * DAY_MS))
    chosen = select(Job.id).where(ended, has_some).order_by(Job.id).limit(1).scalar_subquery()
    lines = select(LogLine.id).where(LogLine.job_id == chosen).order_by(LogLine.id).limit(LINES_AT_ONCE)
    while True:
        with context.database.write() as session:
            gone = session.scalars(delete(LogLine).where(LogLine.id.in_(lines)).returning(LogLine.id)).all()
        swept.lines += len(gone)
        if not gone:
            return
        yield


def _minutes(context: Context, swept: Swept) -> Iterator[None]:
    """How busy workers were longer ago than is shown."""
    while gone := fleet_use.forget(context.database):
        swept.minutes += gone
        yield
