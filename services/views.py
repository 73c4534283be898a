"""What people are shown of jobs, data sets and workers: plain JSON, the same for API and dashboard.

What is seen says `services.projects`; whatever is not visible does not exist (`NotFound`).
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, get_args

from sqlalchemy import ColumnElement, Row, Text, and_, bindparam, case, cast, func, literal, or_, select, union_all
from sqlalchemy.orm import Session, aliased

from bgpanet.validation import nearest
from services import listing, projects
from services.claims import State
from services.database import Database, now_ms
from services.errors import NotFound
from services.fleet import LOST_MS, worker_of
from services.listing import HIDDEN, DatasetFilter
from services.listing import JobFilter as JobFilter
from services.tables import (
    Artifact,
    Attempt,
    Checkpoint,
    Dataset,
    Dependency,
    Job,
    JobLabel,
    LogLine,
    Metric,
    Transition,
    Worker,
    personal,
)
from services.tokens import Principal

PARENTS = ("cross_validate", "study", "predict")
STATES = get_args(State)
TOLD_NAMES, MOST_NAMES = 10, 1000  # of data sets: told where none is near; looked through for a near one
NO_PROGRESS = {
    "fraction": 0.0,
    "step": None,
    "steps": None,
    "epoch": None,
    "epochs": None,
    "eta_seconds": None,
    "message": "",
}
SMALL = (
    Job.id, Job.kind, Job.name, Job.state, Job.reason, Job.error, Job.project, Job.priority, Job.attempt,
    Job.max_attempts, Job.time_limit, Job.memory_gb, Job.on_failure, Job.superseded_by, Job.cloned_from, Job.progress,
    Job.parent_id, Job.position, Job.worker, Job.created_by, Job.created_at, Job.started_at, Job.finished_at,
    Job.dataset_id, Job.model_version_id, Dataset.name.label("dataset"), Dataset.version.label("dataset_version"),
)  # fmt: skip
LARGE = (Job.spec, Job.summary)
# Columns, since objects cost more than all else of a page; made once, since that costs as much as their run.
_JOBS = select(*SMALL, *LARGE).outerjoin(Dataset)
_JOBS_AS_TEXT = select(*SMALL, *(cast(column, Text).label(column.key) for column in LARGE)).outerjoin(Dataset)
_AMONG = Job.id.in_(bindparam("ids", expanding=True))
_PAGE, _PAGE_AS_TEXT = _JOBS.where(_AMONG), _JOBS_AS_TEXT.where(_AMONG)
_PARENT = aliased(Job)
_CHILDREN = (
    select(Job.parent_id, Job.state, Job.progress)
    .join(_PARENT, _PARENT.id == Job.parent_id)
    .where(Job.parent_id.in_(bindparam("parents", expanding=True)))
    # Of a job that was tried again, those are counted that it has kept.
    .where(or_(Job.superseded_by.is_(None), _PARENT.superseded_by.is_not(None)))
)
_BESIDE = union_all(  # what a job's own row does not tell
    select(literal("after"), Dependency.needs).where(Dependency.job_id == bindparam("job_id")),
    select(literal("labels"), JobLabel.label).where(JobLabel.job_id == bindparam("job_id")),
    select(literal("retry_of"), Job.id).where(Job.superseded_by == bindparam("job_id")),
)
JobRow = Row[Any]  # of one of these queries


@dataclass(frozen=True)
class Page:
    """A part of a list. `next_cursor` asks for the following part; None at the end."""

    items: list[dict[str, Any]]
    next_cursor: str | None


def timestamp(ms: int | None) -> str | None:
    """RFC 3339 in UTC, milliseconds."""
    return (
        None
        if ms is None
        else datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )


# ── Jobs ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def list_jobs(
    database: Database, principal: Principal, wanted: JobFilter, cursor: str | None = None, limit: int = 50
) -> Page:
    """Jobs, newest first; without a parent in the filter only those that have none."""
    with database.read() as session:
        ids = listing.job_ids(session, projects.seen_by(session, principal), wanted, cursor, limit + 1)
        shown = ids[:limit]
        return Page(_render(session, _in_order(session, _PAGE, shown)), shown[-1] if len(ids) > limit else None)


def list_jobs_as_text(
    database: Database, principal: Principal, wanted: JobFilter, cursor: str | None = None, limit: int = 50
) -> str:
    """The page of `list_jobs` as JSON. What is large in it is not read and written anew: in the database it is text."""
    with database.read() as session:
        ids = listing.job_ids(session, projects.seen_by(session, principal), wanted, cursor, limit + 1)
        shown = ids[:limit]
        items = _render(session, _in_order(session, _PAGE_AS_TEXT, shown))
    texts = []
    for item in items:
        large = "".join(f', "{column.key}": {item.pop(column.key)}' for column in LARGE)
        texts.append(f"{json.dumps(item)[:-1]}{large}}}")
    next_cursor = shown[-1] if len(ids) > limit else None
    return f'{{"items": [{", ".join(texts)}], "next_cursor": {json.dumps(next_cursor)}}}'


def _in_order(session: Session, query: Any, ids: Sequence[str]) -> list[Any]:
    """The rows of a query for the jobs `ids`, in their order."""
    rows = {row.id: row for row in session.execute(query, {"ids": ids})}
    return [rows[job_id] for job_id in ids if job_id in rows]


def get_job(database: Database, principal: Principal, job_id: str) -> dict[str, Any]:
    """One job. Raises NotFound."""
    with database.read() as session:
        row = session.execute(_JOBS.where(_visible(principal), Job.id == job_id)).first()
        if row is None:
            raise NotFound(f"there is no job {job_id}")
        beside: dict[str, list[str]] = {"after": [], "labels": [], "retry_of": []}
        for what, value in session.execute(_BESIDE, {"job_id": job_id}):
            beside[what].append(value)
        return {
            **_render(session, [row])[0],
            "after": sorted(beside["after"]),
            "labels": sorted(beside["labels"]),
            "retry_of": next(iter(beside["retry_of"]), None),
        }


def require_job(session: Session, principal: Principal, job_id: str) -> None:
    """Raises NotFound where somebody does not see a job."""
    if session.scalar(select(Job.id).where(_visible(principal), Job.id == job_id)) is None:
        raise NotFound(f"there is no job {job_id}")


def jobs_among(database: Database, principal: Principal, job_ids: Collection[str]) -> dict[str, dict[str, Any]]:
    """Those of some jobs that one sees, by id, as lists show them."""
    with database.read() as session:
        rows = session.execute(_PAGE.where(_visible(principal)), {"ids": list(job_ids)}).all()
        return {job["id"]: job for job in _render(session, rows)}


def visible_among(database: Database, principal: Principal, job_ids: Sequence[str]) -> set[str]:
    """Those of some jobs that one sees."""
    with database.read() as session:
        return set(session.scalars(select(Job.id).where(_visible(principal), Job.id.in_(job_ids))))


def list_children(database: Database, principal: Principal, job_id: str) -> list[dict[str, Any]]:
    """The children of a job, in their order. Raises NotFound."""
    with database.read() as session:
        require_job(session, principal, job_id)
        query = _JOBS.where(Job.parent_id == job_id).order_by(Job.position, Job.id)
        return _render(session, session.execute(query).all())


def list_metrics(
    database: Database, principal: Principal, job_id: str, names: Sequence[str] = ()
) -> dict[str, list[dict[str, Any]]]:
    """Every figure of a job by name, each a series in the order of steps. Raises NotFound."""
    query = select(Metric).where(Metric.job_id == job_id).order_by(Metric.name, Metric.step)
    if names:
        query = query.where(Metric.name.in_(names))
    series: dict[str, list[dict[str, Any]]] = {}
    with database.read() as session:
        require_job(session, principal, job_id)
        for metric in session.scalars(query):
            point = {"step": metric.step, "epoch": metric.epoch, "value": metric.value}
            series.setdefault(metric.name, []).append(point)
    return series


def list_logs(
    database: Database, principal: Principal, job_id: str, after: int = 0, limit: int = 1000
) -> list[dict[str, Any]]:
    """Log lines of a job with ids above `after`, oldest first. Raises NotFound."""
    query = select(LogLine).where(LogLine.job_id == job_id, LogLine.id > after).order_by(LogLine.id).limit(limit)
    with database.read() as session:
        require_job(session, principal, job_id)
        return [log_line_json(line) for line in session.scalars(query)]


def list_events(database: Database, principal: Principal, job_id: str) -> list[dict[str, Any]]:
    """What happened to a job, oldest first. Raises NotFound."""
    with database.read() as session:
        require_job(session, principal, job_id)
        rows = session.scalars(select(Transition).where(Transition.job_id == job_id).order_by(Transition.id))
        return [transition_json(row) for row in rows]


def log_line_json(line: LogLine) -> dict[str, Any]:
    """What people are shown of a log line."""
    at = timestamp(line.at)
    return {"id": line.id, "attempt": line.attempt, "at": at, "level": line.level, "message": line.message}


def transition_json(row: Transition) -> dict[str, Any]:
    """What people are shown of something that happened to a job."""
    return {"id": row.id, "at": timestamp(row.at), "attempt": row.attempt, "state": row.state, "detail": row.detail}


def list_attempts(database: Database, principal: Principal, job_id: str) -> list[dict[str, Any]]:
    """The attempts of a job, oldest first. Raises NotFound."""
    with database.read() as session:
        require_job(session, principal, job_id)
        rows = session.scalars(select(Attempt).where(Attempt.job_id == job_id).order_by(Attempt.number))
        return [
            {
                "number": row.number,
                "worker": row.worker,
                "started_at": timestamp(row.started_at),
                "ended_at": timestamp(row.ended_at),
                "outcome": row.outcome,
                "resumed_from_step": row.resumed_from_step,
                "images_at_once": row.images_at_once,
                "version": row.version,
            }
            for row in rows
        ]


def list_checkpoints(database: Database, principal: Principal, job_id: str) -> list[dict[str, Any]]:
    """The recorded checkpoints of a job, oldest first. Raises NotFound."""
    with database.read() as session:
        require_job(session, principal, job_id)
        rows = session.scalars(select(Checkpoint).where(Checkpoint.job_id == job_id).order_by(Checkpoint.step))
        return [
            {
                "step": row.step,
                "epoch": row.epoch,
                "attempt": row.attempt,
                "created_at": timestamp(row.created_at),
                "files": {name: {"sha256": f["sha256"], "size": f["size"]} for name, f in row.files.items()},
            }
            for row in rows
        ]


def list_artifacts(database: Database, principal: Principal, job_id: str) -> list[dict[str, Any]]:
    """The files of a job's result, by name. Raises NotFound."""
    with database.read() as session:
        require_job(session, principal, job_id)
        rows = session.scalars(select(Artifact).where(Artifact.job_id == job_id).order_by(Artifact.name))
        return [
            {
                "name": row.name,
                "media_type": row.media_type,
                "size": row.size,
                "sha256": row.sha256,
                "created_at": timestamp(row.created_at),
            }
            for row in rows
        ]


def get_artifact(database: Database, principal: Principal, job_id: str, name: str) -> Artifact:
    """The row of one artifact. Raises NotFound."""
    with database.read() as session:
        require_job(session, principal, job_id)
        row = session.get(Artifact, (job_id, name))
    if row is None:
        raise NotFound(f"job {job_id} has no artifact {name!r}")
    return row


def list_explanations(database: Database, principal: Principal, job_id: str) -> list[tuple[str, str]]:
    """(job, artifact) of every picture in the results of jobs that explained this one, the newest job first."""
    query = select(Artifact.job_id, Artifact.name).join(Job, Job.id == Artifact.job_id).where(_visible(principal))
    query = query.where(Job.kind == "explain", Job.spec["model"].as_string() == job_id)
    with database.read() as session:
        rows = session.execute(query.where(Artifact.media_type == "image/png").order_by(Job.id.desc(), Artifact.name))
        return [(explaining, name) for explaining, name in rows]


def count_states(database: Database, principal: Principal) -> dict[str, int]:
    """How many jobs without a parent are in each state."""
    query = select(Job.state, func.count()).where(Job.kind != HIDDEN, Job.parent_id.is_(None)).group_by(Job.state)
    with database.read() as session:
        places = projects.seen_by(session, principal)
        query = query if places is None else query.where(Job.project.in_(places))
        found = {state: count for state, count in session.execute(query)}
    return {state: found.get(state, 0) for state in STATES}


def _visible(principal: Principal) -> ColumnElement[bool]:
    return and_(Job.kind != HIDDEN, projects.visible(principal, Job.project))


def _render(session: Session, rows: Sequence[JobRow]) -> list[dict[str, Any]]:
    counts: dict[str, dict[str, int]] = {}
    fractions: dict[str, float] = {}
    parents = [job.id for job in rows if job.kind in PARENTS]
    if parents:
        for parent_id, state, progress in session.execute(_CHILDREN, {"parents": parents}):
            assert parent_id is not None  # noqa: S101 - the query says so
            counts.setdefault(parent_id, dict.fromkeys(STATES, 0))[state] += 1
            done = 1.0 if state == "succeeded" else float(progress.get("fraction", 0.0))
            fractions[parent_id] = fractions.get(parent_id, 0.0) + done
    return [_job(job, counts.get(job.id), fractions.get(job.id)) for job in rows]


def _job(job: JobRow, children: dict[str, int] | None, fraction: float | None) -> dict[str, Any]:
    progress = {**NO_PROGRESS, **job.progress}
    if children is not None and fraction is not None and job.worker is None:
        total = sum(children.values())
        progress["fraction"] = fraction / total
        what = "shards" if job.kind == "predict" else "trainings"
        progress["message"] = f"{children['succeeded']} of {total} {what} done"
    if job.state == "succeeded":
        progress.update(fraction=1.0, eta_seconds=0.0)
    return {
        "id": job.id,
        "kind": job.kind,
        "name": job.name,
        "state": job.state,
        "reason": job.reason,
        "error": job.error,
        "project": job.project,
        "dataset": job.dataset,
        "spec": job.spec,
        "priority": job.priority,
        "attempt": job.attempt,
        "max_attempts": job.max_attempts,
        "time_limit": job.time_limit,
        "memory_gb": job.memory_gb,
        "on_failure": job.on_failure if children is not None else None,
        "superseded_by": job.superseded_by,
        "cloned_from": job.cloned_from,
        "progress": progress,
        "summary": job.summary,
        "parent": job.parent_id,
        "position": job.position,
        "children": children,
        "worker": job.worker,
        "created_by": job.created_by,
        "created_at": timestamp(job.created_at),
        "started_at": timestamp(job.started_at),
        "finished_at": timestamp(job.finished_at),
        "dataset_id": job.dataset_id,
        "model_version_id": job.model_version_id,
        "dataset_version": job.dataset_version,
    }


# ── Data sets and workers ─────────────────────────────────────────────────────────────────────────────────────────


def list_datasets(
    database: Database,
    principal: Principal,
    cursor: str | None = None,
    limit: int = 50,
    wanted: DatasetFilter | None = None,
) -> Page:
    """Data sets in every state, newest first; without those whose content was there already, unless that is asked."""
    conditions = [projects.visible(principal, Dataset.project), *listing.dataset_conditions(wanted or DatasetFilter())]
    if wanted is None or wanted.state is None:
        conditions.append(Dataset.state != "duplicate")
    if cursor:
        conditions.append(Dataset.id < cursor)
    query = select(Dataset).where(*conditions).order_by(Dataset.id.desc()).limit(limit + 1)
    with database.read() as session:
        rows = session.scalars(query).all()
        progress = _registering(session, rows)
    items = [dataset_json(row, progress.get(row.id)) for row in rows[:limit]]
    return Page(items, items[-1]["id"] if len(rows) > limit else None)


def get_dataset(database: Database, principal: Principal, name_or_id: str) -> dict[str, Any]:
    """One data set; see `find_dataset`."""
    row = find_dataset(database, principal, name_or_id)
    with database.read() as session:
        progress = _registering(session, [row])
        uses = _locked_uses(session, row.id) if row.locked else None
    return {**dataset_json(row, progress.get(row.id)), "locked_uses": uses}


def find_dataset(database: Database, principal: Principal, name_or_id: str) -> Dataset:
    """The row of a data set, by id, `name@version`, or name: its newest version that is ready, else what there is.

    `project/name` names one of that project; without it, one's own comes before that of any other project.

    Raises:
        NotFound: naming those that exist.
    """
    ranks = ((Dataset.id == name_or_id, 0), (Dataset.state == "ready", 1), (Dataset.state == "registering", 2))
    best, seen = case(*ranks, else_=3), projects.visible(principal, Dataset.project)
    is_other = case((Dataset.project == personal(principal.user), 0), else_=1)
    query = select(Dataset).where(seen, listing.named(name_or_id))
    query = query.order_by(best, is_other, Dataset.version.desc(), Dataset.id.desc())
    with database.read() as session:
        row = session.scalar(query.limit(1))
        if row is not None and row.same_as is not None:
            row = session.get(Dataset, row.same_as)
        if row is not None:
            return row
        names = session.scalars(
            select(Dataset.name)
            .where(seen, Dataset.state == "ready")
            .distinct()
            .order_by(Dataset.name)
            .limit(MOST_NAMES)
        ).all()
    near = nearest(name_or_id, names)
    known = f"registered: {', '.join(names[:TOLD_NAMES])}" if names else "none is registered yet"
    hint = f"; did you mean {near!r}?" if near else f"; {known}"
    raise NotFound(f"there is no data set {name_or_id!r}{hint}")


def dataset_of(database: Database, job: Mapping[str, Any]) -> Dataset | None:
    """The row of the data set of a job that somebody sees, if not its project; None: it needs none."""
    with database.read() as session:
        return session.get(Dataset, job["dataset_id"]) if job["dataset_id"] else None


def find_checks(database: Database, dataset: Dataset) -> Artifact | None:
    """The file with the whole report of a data set's checks; whoever sees the data set may read it."""
    with database.read() as session:
        return session.get(Artifact, (dataset.job_id, "checks.json")) if dataset.job_id else None


def _registering(session: Session, rows: Sequence[Dataset]) -> dict[str, dict[str, Any]]:
    """The progress of those that are being registered, by id."""
    jobs_of = [row.job_id for row in rows if row.state == "registering"]
    query = select(Job.dataset_id, Job.progress).where(Job.id.in_(jobs_of))
    return {dataset_id: {**NO_PROGRESS, **progress} for dataset_id, progress in session.execute(query)}


def _locked_uses(session: Session, dataset_id: str) -> list[dict[str, Any]]:
    """Every evaluation that was asked for on the locked part, whosever it is, oldest first: each look makes it less of
    a test of the next model."""
    query = select(Job).where(Job.dataset_id == dataset_id, Job.kind == "evaluate").order_by(Job.id)
    return [
        {"job": job.id, "model": job.spec["model"], "state": job.state, "by": job.created_by,
         "at": timestamp(job.created_at)}
        for job in session.scalars(query) if job.spec["part"] == "locked"
    ]  # fmt: skip


def dataset_json(row: Dataset, progress: dict[str, Any] | None = None) -> dict[str, Any]:
    """What people are shown of a data set. What is not known before it has been read is null until then."""
    known = bool(row.digest)
    return {
        "id": row.id,
        "project": row.project,
        "name": row.name,
        "version": row.version,
        "state": row.state,
        "job": row.job_id,
        "progress": progress,
        "error": row.error,
        "format": row.format,
        "digest": row.digest or None,
        "synthetic": row.synthetic,
        "classes": row.classes,
        "images": row.images if known else None,
        "groups": row.groups if known else None,
        "group_unit": row.group_unit or None,
        "class_counts": row.class_counts,
        "columns": row.columns,
        "licence": row.licence,
        "citation": row.citation,
        "locked": row.locked or None,
        "bytes": sum(int(file["size"]) for file in row.files.values()),
        "findings": row.findings,
        "checks": row.checks,
        "created_by": row.created_by,
        "created_at": timestamp(row.created_at),
        "ready_at": timestamp(row.ready_at),
        "removed_by": row.removed_by,
        "removed_at": timestamp(row.removed_at),
    }


def list_workers(database: Database) -> list[dict[str, Any]]:
    """Worker slots, by name.

    `state` is idle or busy; checking, unfit or draining where it takes no jobs, or was asked to leave, and `why`; or
    lost where it was not heard of for a minute.
    """
    with database.read() as session:
        now = session.scalar(select(now_ms())) or 0
        rows = session.scalars(select(Worker).order_by(Worker.name)).all()
    return [
        {
            "name": row.name,
            "worker": worker_of(row.name),
            "host": row.host,
            "pid": row.pid,
            "version": row.version,
            "device": row.device,
            "resource_classes": row.resource_classes,
            "labels": row.labels,
            "memory_gb": row.memory_gb,
            "state": _worker_state(row, now),
            "why": row.why or (row.told_to_leave_by and f"{row.told_to_leave_by} asked it to leave"),
            "job": row.job_id,
            "figures": row.figures,
            "weights": row.weights,
            "started_at": timestamp(row.started_at),
            "seen_at": timestamp(row.seen_at),
        }
        for row in rows
    ]


def _worker_state(row: Worker, now: int) -> str:
    if row.seen_at < now - LOST_MS:
        return "lost"
    if row.told_to_leave_by is not None:
        return "draining"
    if row.state != "ready":
        return row.state
    return "busy" if row.job_id else "idle"
