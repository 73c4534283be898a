"""The tables. Times are milliseconds since 1970, UTC. `migrations/` builds them; a test holds both equal."""

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Float,
    ForeignKey,
    Index,
    Integer,
    String,
    Text,
    UniqueConstraint,
    text,
    true,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

TERMINAL = ("succeeded", "failed", "cancelled")
SCOPES = ("read", "submit", "manage")
SHARED = "shared"  # the project whose data sets everyone sees


def personal(user: str) -> str:
    """The project that a user has for themselves. It has no row and no other members."""
    return f"~{user}"


def _of_its_maker(context: Any) -> str:
    return personal(context.get_current_parameters()["created_by"])


# SQLite numbers rows by itself only in a column that it calls INTEGER.
RowNumber = BigInteger().with_variant(Integer(), "sqlite")


def _index(name: str, *columns: str, where: str) -> Index:
    """An index of those rows alone of which `where` holds."""
    return Index(name, *columns, sqlite_where=text(where), postgresql_where=text(where))


class Base(DeclarativeBase):
    """All tables of the control plane."""

    type_annotation_map = {dict[str, Any]: JSON, list[Any]: JSON}  # noqa: RUF012 - SQLAlchemy reads it so


class Token(Base):
    """A bearer token. Only its digest is kept."""

    __tablename__ = "tokens"
    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    user: Mapped[str] = mapped_column(String(200))
    role: Mapped[str] = mapped_column(String(20))
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    scopes: Mapped[list[Any]] = mapped_column(default=lambda: list(SCOPES))  # see services.tokens.Scope
    created_at: Mapped[int] = mapped_column(BigInteger)
    expires_at: Mapped[int | None] = mapped_column(BigInteger)  # None: when it is revoked
    last_used_at: Mapped[int | None] = mapped_column(BigInteger)  # to the minute
    revoked_at: Mapped[int | None] = mapped_column(BigInteger)


class Dataset(Base):
    """A data set: known by the digest of its content, and immutable once it is ready. `services.registry` writes it.

    What is not known before it has been read (digest, counts, …) is empty until then.
    """

    __tablename__ = "datasets"
    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    project: Mapped[str] = mapped_column(String(201), default=SHARED)  # see services/projects.py
    name: Mapped[str] = mapped_column(String(200))
    version: Mapped[int | None] = mapped_column(Integer, default=1)  # 1, 2, … of its name; None until it is ready
    state: Mapped[str] = mapped_column(String(20), default="ready")  # see services/registry.py
    job_id: Mapped[str | None] = mapped_column(String(36))  # the job that registers it
    same_as: Mapped[str | None] = mapped_column(String(36))  # a duplicate: the data set that has its content
    error: Mapped[str | None] = mapped_column(Text)  # why it was refused
    format: Mapped[str] = mapped_column(String(40))
    digest: Mapped[str] = mapped_column(String(64), index=True)
    synthetic: Mapped[bool] = mapped_column(Boolean)
    classes: Mapped[list[Any]]
    images: Mapped[int] = mapped_column(Integer)
    groups: Mapped[int] = mapped_column(Integer)
    group_unit: Mapped[str] = mapped_column(String(40))
    class_counts: Mapped[list[Any]]
    columns: Mapped[list[Any]] = mapped_column(default=list)  # what else the source tells of images
    licence: Mapped[str | None] = mapped_column(Text)
    citation: Mapped[str | None] = mapped_column(Text)
    locked: Mapped[dict[str, Any]] = mapped_column(default=dict)  # the part that no training sees; {}: none
    findings: Mapped[list[Any]]
    checks: Mapped[dict[str, Any]] = mapped_column(default=dict)  # figures of the report that `findings` belong to
    files: Mapped[dict[str, Any]]  # file name -> {"key", "sha256", "size"}
    created_by: Mapped[str] = mapped_column(String(200))
    created_at: Mapped[int] = mapped_column(BigInteger)
    ready_at: Mapped[int | None] = mapped_column(BigInteger)
    removed_by: Mapped[str | None] = mapped_column(String(200))
    removed_at: Mapped[int | None] = mapped_column(BigInteger)

    __table_args__ = (UniqueConstraint("project", "name", "version", name="uq_datasets_version"),)


class Upload(Base):
    """A file that somebody sends in parts; the store knows which parts are there. See services/uploads.py."""

    __tablename__ = "uploads"
    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    project: Mapped[str] = mapped_column(String(201), default=_of_its_maker)
    name: Mapped[str] = mapped_column(String(200))
    size: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))
    part_size: Mapped[int] = mapped_column(BigInteger)
    state: Mapped[str] = mapped_column(String(20))  # open, complete, expired
    key: Mapped[str] = mapped_column(String(400))
    parts_id: Mapped[str] = mapped_column(String(1024))  # what the store calls it until it is complete
    dataset_id: Mapped[str | None] = mapped_column(String(36))  # what was registered from it last
    created_by: Mapped[str] = mapped_column(String(200))
    created_at: Mapped[int] = mapped_column(BigInteger, index=True)


class Job(Base):
    """A job and its present state. `services.jobs` alone writes this table."""

    __tablename__ = "jobs"
    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    project: Mapped[str] = mapped_column(String(201), default=_of_its_maker)
    kind: Mapped[str] = mapped_column(String(40))
    name: Mapped[str] = mapped_column(String(200))
    state: Mapped[str] = mapped_column(String(20))
    reason: Mapped[str | None] = mapped_column(String(40))
    error: Mapped[str | None] = mapped_column(Text)
    dataset_id: Mapped[str | None] = mapped_column(ForeignKey("datasets.id"), index=True)  # null: it needs none
    model_version_id: Mapped[str | None] = mapped_column(String(36), index=True)  # the registered model that it uses
    spec: Mapped[dict[str, Any]]
    resource_class: Mapped[str] = mapped_column(String(20))
    priority: Mapped[int] = mapped_column(Integer)
    parent_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"))
    position: Mapped[int | None] = mapped_column(Integer)  # among its parent's children, from 0
    attempt: Mapped[int] = mapped_column(Integer)  # number of the latest attempt; 0 before the first
    losses: Mapped[int] = mapped_column(Integer)  # attempts lost in a row without a new checkpoint
    max_attempts: Mapped[int] = mapped_column(Integer)
    wants_worker: Mapped[bool] = mapped_column(Boolean)  # true while a worker may claim it
    weights: Mapped[str | None] = mapped_column(String(100))  # file of ImageNet weights; its worker can load it
    images_at_once: Mapped[int | None] = mapped_column(Integer)  # on the device; null: as many as the spec says
    memory_gb: Mapped[float | None] = mapped_column(Float(53))  # of the device, at least, 10^9 bytes
    time_limit: Mapped[int | None] = mapped_column(Integer)  # seconds of work, all attempts together
    on_failure: Mapped[str] = mapped_column(String(20))  # of a child: finish_rest or fail_fast
    not_before: Mapped[int] = mapped_column(BigInteger)
    cancel_requested: Mapped[bool] = mapped_column(Boolean)
    pause_requested: Mapped[bool] = mapped_column(Boolean)
    superseded_by: Mapped[str | None] = mapped_column(String(36))  # the job that tries it again
    cloned_from: Mapped[str | None] = mapped_column(String(36))
    worker: Mapped[str | None] = mapped_column(String(200))
    lease_expires_at: Mapped[int | None] = mapped_column(BigInteger)
    progress: Mapped[dict[str, Any]]
    summary: Mapped[dict[str, Any]]
    created_by: Mapped[str] = mapped_column(String(200))
    idempotency_key: Mapped[str | None] = mapped_column(String(200))
    created_at: Mapped[int] = mapped_column(BigInteger)
    started_at: Mapped[int | None] = mapped_column(BigInteger)
    finished_at: Mapped[int | None] = mapped_column(BigInteger)
    traceparent: Mapped[str | None] = mapped_column(String(55))  # where its trace goes on: W3C Trace Context

    __table_args__ = (
        UniqueConstraint("created_by", "idempotency_key", name="uq_jobs_idempotency"),
        Index("ix_jobs_waiting", "wants_worker", "resource_class", "priority", "created_at"),
        Index("ix_jobs_state", "state", "lease_expires_at"),
        # Of children alone, so that SQLite, which counts no rows, does not take it for lists of jobs without a parent.
        _index("ix_jobs_children", "parent_id", "position", where="parent_id IS NOT NULL"),
        Index("ix_jobs_owner", "created_by", "id"),
        # Pages of lists, for each filter the newest first, with all that it takes to search names.
        _index("ix_jobs_top", "id", "name", "parent_id", "kind", where="parent_id IS NULL"),
        _index("ix_jobs_top_kind", "kind", "id", "name", "parent_id", where="parent_id IS NULL"),
        *(
            _index(f"ix_jobs_top_{column}", column, "id", "name", "parent_id", "kind", where="parent_id IS NULL")
            for column in ("project", "created_by", "state", "dataset_id")
        ),
        # What is told of one job beside it: what tries it again, what its workers do, how long its like took.
        _index("ix_jobs_superseded", "superseded_by", where="superseded_by IS NOT NULL"),
        _index("ix_jobs_worker", "worker", where="worker IS NOT NULL"),
        Index("ix_jobs_ended", "state", "finished_at"),
    )


class JobLabel(Base):
    """A label that a worker must have to be given the job."""

    __tablename__ = "job_labels"
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    label: Mapped[str] = mapped_column(String(100), primary_key=True)


class Dependency(Base):
    """A job that begins only after another one has succeeded."""

    __tablename__ = "dependencies"
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    needs: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True, index=True)


class Attempt(Base):
    """One try of a job by one worker."""

    __tablename__ = "attempts"
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True)
    worker: Mapped[str] = mapped_column(String(200))
    started_at: Mapped[int] = mapped_column(BigInteger)
    ended_at: Mapped[int | None] = mapped_column(BigInteger)
    outcome: Mapped[str | None] = mapped_column(String(40))
    resumed_from_step: Mapped[int | None] = mapped_column(Integer)
    images_at_once: Mapped[int | None] = mapped_column(Integer)  # the job's, when it was claimed
    version: Mapped[str | None] = mapped_column(String(40))  # the worker's


class Transition(Base):
    """What happened to a job, in order."""

    __tablename__ = "transitions"
    id: Mapped[int] = mapped_column(RowNumber, primary_key=True, autoincrement=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), index=True)
    at: Mapped[int] = mapped_column(BigInteger)
    attempt: Mapped[int] = mapped_column(Integer)
    state: Mapped[str] = mapped_column(String(20))
    detail: Mapped[str] = mapped_column(Text)


class Metric(Base):
    """One figure at one step. A resumed attempt replaces what came after its checkpoint."""

    __tablename__ = "metrics"
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    name: Mapped[str] = mapped_column(String(80), primary_key=True)
    step: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    epoch: Mapped[int] = mapped_column(Integer)
    value: Mapped[float] = mapped_column(Float(53))


class LogLine(Base):
    """A line that a job's run printed."""

    __tablename__ = "log_lines"
    id: Mapped[int] = mapped_column(RowNumber, primary_key=True, autoincrement=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    attempt: Mapped[int] = mapped_column(Integer)
    at: Mapped[int] = mapped_column(BigInteger)
    level: Mapped[str] = mapped_column(String(10))
    message: Mapped[str] = mapped_column(Text)

    __table_args__ = (Index("ix_log_lines_job", "job_id", "id"),)


class Checkpoint(Base):
    """A complete, uploaded checkpoint."""

    __tablename__ = "checkpoints"
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    step: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    epoch: Mapped[int] = mapped_column(Integer)
    attempt: Mapped[int] = mapped_column(Integer)
    files: Mapped[dict[str, Any]]  # file name -> {"key", "sha256", "size"}
    kept: Mapped[bool] = mapped_column(Boolean, default=False)  # its weights belong to the result
    created_at: Mapped[int] = mapped_column(BigInteger)


class Artifact(Base):
    """A file that belongs to a job's result."""

    __tablename__ = "artifacts"
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    name: Mapped[str] = mapped_column(String(200), primary_key=True)
    attempt: Mapped[int] = mapped_column(Integer)
    key: Mapped[str] = mapped_column(String(400), index=True)
    sha256: Mapped[str] = mapped_column(String(64))
    size: Mapped[int] = mapped_column(BigInteger)
    media_type: Mapped[str] = mapped_column(String(100))
    created_at: Mapped[int] = mapped_column(BigInteger)


class Worker(Base):
    """A worker slot that was seen lately."""

    __tablename__ = "workers"
    name: Mapped[str] = mapped_column(String(200), primary_key=True)
    host: Mapped[str] = mapped_column(String(200))
    pid: Mapped[int] = mapped_column(Integer)
    version: Mapped[str] = mapped_column(String(40))
    device: Mapped[str] = mapped_column(String(200))
    resource_classes: Mapped[list[Any]]
    job_id: Mapped[str | None] = mapped_column(String(36))
    figures: Mapped[dict[str, Any]]
    weights: Mapped[dict[str, Any]] = mapped_column(server_default="{}")  # see services.fleet.Weights
    labels: Mapped[list[Any]] = mapped_column(server_default="[]")
    memory_gb: Mapped[float | None] = mapped_column(Float(53))  # of its device, 10^9 bytes; null: not told
    state: Mapped[str] = mapped_column(String(20), server_default="ready")  # see services.fleet.Condition
    why: Mapped[str | None] = mapped_column(Text)
    told_to_leave_by: Mapped[str | None] = mapped_column(String(200))  # the user; null: nobody has
    started_at: Mapped[int] = mapped_column(BigInteger)
    seen_at: Mapped[int] = mapped_column(BigInteger)


class WorkerUse(Base):
    """How busy a worker slot was up to a moment, about a minute since the row before. See services/fleet_use.py."""

    __tablename__ = "worker_use"
    worker: Mapped[str] = mapped_column(String(200), primary_key=True)  # the slot's name
    at: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False, index=True)
    busy: Mapped[float] = mapped_column(Float(53))  # the share of the time with a job
    gpu_percent: Mapped[float | None] = mapped_column(Float(53))
    cpu_percent: Mapped[float | None] = mapped_column(Float(53))  # of its host


class Leader(Base):
    """Who holds an office of which there is one, and until when. `services.leadership` writes it."""

    __tablename__ = "leaders"
    name: Mapped[str] = mapped_column(String(40), primary_key=True)
    holder: Mapped[str] = mapped_column(String(200))  # empty: given back
    term: Mapped[int] = mapped_column(Integer)  # grows whenever the holder changes
    expires_at: Mapped[int] = mapped_column(BigInteger)


# ── Webhooks ──────────────────────────────────────────────────────────────────────────────────────────────────────


class Webhook(Base):
    """An address that is told when jobs end. See services/webhooks.py."""

    __tablename__ = "webhooks"
    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    url: Mapped[str] = mapped_column(String(2000))
    states: Mapped[list[Any]]  # the ends that it wants to hear of
    children: Mapped[bool] = mapped_column(Boolean)  # also of jobs that have a parent
    everyone: Mapped[bool] = mapped_column(Boolean)  # of the jobs of all users
    active: Mapped[bool] = mapped_column(Boolean, server_default=true())  # else it is told nothing
    secret: Mapped[str] = mapped_column(String(100))  # signs, so it can't be kept as a digest
    created_by: Mapped[str] = mapped_column(String(200), index=True)
    created_at: Mapped[int] = mapped_column(BigInteger)


class Delivery(Base):
    """Something that a webhook is told, written with what it tells of. `services.outbox` writes it.

    It names no webhook by a foreign key: one that is removed at the same moment must not undo a job's end.
    """

    __tablename__ = "deliveries"
    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    webhook_id: Mapped[str] = mapped_column(String(36))
    event: Mapped[str] = mapped_column(String(40))
    job_id: Mapped[str | None] = mapped_column(String(36))
    facts: Mapped[dict[str, Any]]  # what its body is made of
    state: Mapped[str] = mapped_column(String(20))  # waiting, delivered, given_up
    tries: Mapped[int] = mapped_column(Integer)
    tries_left: Mapped[int] = mapped_column(Integer)
    status: Mapped[int | None] = mapped_column(Integer)  # of the last answer
    error: Mapped[str | None] = mapped_column(Text)  # what was wrong with the last try
    created_at: Mapped[int] = mapped_column(BigInteger)
    next_at: Mapped[int] = mapped_column(BigInteger)  # of the next try; while one is under way, when it counts as lost
    ended_at: Mapped[int | None] = mapped_column(BigInteger)

    __table_args__ = (
        Index("ix_deliveries_due", "state", "next_at"),
        Index("ix_deliveries_webhook", "webhook_id", "id"),
    )


# ── Who may ───────────────────────────────────────────────────────────────────────────────────────────────────────


class Project(Base):
    """What jobs, data sets and uploads belong to that several people share. `services.projects` writes it."""

    __tablename__ = "projects"
    id: Mapped[str] = mapped_column(String(63), primary_key=True)  # its name, chosen by who made it
    title: Mapped[str] = mapped_column(String(200))
    created_by: Mapped[str] = mapped_column(String(200))
    created_at: Mapped[int] = mapped_column(BigInteger)


class ProjectMember(Base):
    """Somebody who sees a project, and what they may do in it."""

    __tablename__ = "project_members"
    project: Mapped[str] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    user: Mapped[str] = mapped_column(String(200), primary_key=True)
    role: Mapped[str] = mapped_column(String(20))
    added_by: Mapped[str] = mapped_column(String(200))
    added_at: Mapped[int] = mapped_column(BigInteger)

    __table_args__ = (Index("ix_project_members_user", "user"),)


class AuditEntry(Base):
    """Who did what, or tried to. Entries are only ever added: triggers refuse anything else. See services/audit.py."""

    __tablename__ = "audit"
    number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)  # 1, 2, … without gaps
    at: Mapped[int] = mapped_column(BigInteger)
    user: Mapped[str] = mapped_column(String(200))
    token_id: Mapped[str | None] = mapped_column(String(36))
    action: Mapped[str] = mapped_column(String(60))
    subject: Mapped[str] = mapped_column(String(400))
    project: Mapped[str | None] = mapped_column(String(201))
    outcome: Mapped[str] = mapped_column(String(20))  # done, refused
    detail: Mapped[str] = mapped_column(Text)  # JSON
    digest: Mapped[str] = mapped_column(String(64))  # of all this and of the digest before


# ── Registered models ──────────────────────────────────────────────────────────────────────────────────────────────


class RegisteredModel(Base):
    """A name under which trained models are kept. `services.model_registry` writes it, its versions and its aliases."""

    __tablename__ = "models"
    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    project: Mapped[str] = mapped_column(String(201))
    name: Mapped[str] = mapped_column(String(100))
    created_by: Mapped[str] = mapped_column(String(200))
    created_at: Mapped[int] = mapped_column(BigInteger)

    __table_args__ = (UniqueConstraint("project", "name", name="uq_models_name"),)


class ModelVersion(Base):
    """A trained model, or several that answer together: known by the digest of its files, and immutable once ready."""

    __tablename__ = "model_versions"
    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    model_id: Mapped[str] = mapped_column(ForeignKey("models.id"))
    number: Mapped[int | None] = mapped_column(Integer)  # 1, 2, … of its name; None until it is ready
    state: Mapped[str] = mapped_column(String(20))  # see services/model_registry.py
    source: Mapped[str] = mapped_column(String(20))  # trained or imported
    job_id: Mapped[str] = mapped_column(String(36), index=True)  # the job that made it, or imports it
    same_as: Mapped[str | None] = mapped_column(String(36))  # a duplicate: the version that has its content
    error: Mapped[str | None] = mapped_column(Text)  # why it was refused
    findings: Mapped[list[Any]]
    note: Mapped[str | None] = mapped_column(Text)
    digest: Mapped[str] = mapped_column(String(64))
    members: Mapped[int] = mapped_column(Integer)  # models that answer together; 1: one alone
    card: Mapped[dict[str, Any]]  # model.json, of the first member
    metrics: Mapped[dict[str, Any]]  # the summary of the job that made it
    provenance: Mapped[dict[str, Any]]
    files: Mapped[dict[str, Any]]  # file name -> {"key", "sha256", "size"}
    created_by: Mapped[str] = mapped_column(String(200))
    created_at: Mapped[int] = mapped_column(BigInteger)
    ready_at: Mapped[int | None] = mapped_column(BigInteger)
    removed_by: Mapped[str | None] = mapped_column(String(200))
    removed_at: Mapped[int | None] = mapped_column(BigInteger)

    __table_args__ = (UniqueConstraint("model_id", "number", name="uq_model_versions_number"),)


class ModelAlias(Base):
    """A name for one version of a model, which can be moved to another."""

    __tablename__ = "model_aliases"
    model_id: Mapped[str] = mapped_column(ForeignKey("models.id"), primary_key=True)
    alias: Mapped[str] = mapped_column(String(50), primary_key=True)
    version_id: Mapped[str] = mapped_column(ForeignKey("model_versions.id"), index=True)
    moved_by: Mapped[str] = mapped_column(String(200))
    moved_at: Mapped[int] = mapped_column(BigInteger)
