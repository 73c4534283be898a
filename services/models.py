"""Registered models as people name, see, add and remove them. `services.model_registry` writes them.

Models are named `NAME` (its newest version), `NAME@3` (a version) or `NAME@champion` (what an alias stands for now).
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from bgpanet.catalogue import MODELS
from bgpanet.errors import InvalidInput, Problem
from services import audit, model_registry, projects
from services.artifacts import ArtifactStore
from services.audit import Act
from services.context import Context
from services.database import Database
from services.errors import Conflict, Forbidden, NotFound
from services.model_registry import CARD, SPLIT, WEIGHTS, Facts
from services.tables import (
    TERMINAL,
    Artifact,
    Attempt,
    Dataset,
    Job,
    ModelAlias,
    ModelVersion,
    RegisteredModel,
    personal,
)
from services.tokens import Principal
from services.views import Page, get_job, timestamp

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
ALIAS = re.compile(r"[a-z][a-z0-9_-]{0,49}")
JOB_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
MODEL_CARD = "model_card.md"
MOST_CARD_BYTES = 1_000_000
TOLD_JOBS = 20  # of those that are in the way, by id
INTENDED_USE = (
    "For research, no diagnosis: this is not a medical device. Probabilities are those of the classes that the model "
    "was trained with, and say nothing about skin that is unlike what it was tested on."
)


def visible(principal: Principal) -> ColumnElement[bool]:
    """Which models someone may see and use: the one place that decides it."""
    return projects.visible(principal, RegisteredModel.project)


@dataclass(frozen=True)
class Wanted:
    """A finished job whose model is to be kept under a name. alias: it is to stand for it from now on."""

    name: str
    job: str
    alias: str | None = None
    note: str | None = None
    project: str | None = None


# ── Adding ────────────────────────────────────────────────────────────────────────────────────────────────────────


def register(context: Context, principal: Principal, wanted: Wanted) -> tuple[dict[str, Any], bool]:
    """Keeps the model of a training, or those of a cross-validation's folds, as the next version of a name.

    Returns the version, and whether it is new: what is there already under the name stays the version that it is.

    Raises:
        InvalidInput: with every problem.
        StorageError: the job's files can't be read.
    """
    problems, project = name_problems(wanted.name, wanted.alias), ""
    try:
        project = projects.chosen(context.database, principal, wanted.project)
    except (NotFound, Forbidden) as error:
        problems.append(Problem("project", str(error)))
    job: dict[str, Any] | None = None
    try:
        job = get_job(context.database, principal, wanted.job)
        problems += _job_problems(job)
    except NotFound as error:
        problems.append(Problem("job", str(error)))
    if problems or job is None:
        raise InvalidInput(problems)
    with context.database.read() as session:
        facts = _facts(context.store, session, job, wanted.note)
    with context.database.write() as session:
        session.execute(select(Job.id).where(Job.id == wanted.job).with_for_update(read=True))
        model_id = model_registry.named(session, wanted.name, project, principal.user)
        version_id, created = model_registry.add(session, model_id, facts, principal.user)
        if wanted.alias is not None:
            number = session.scalars(select(ModelVersion.number).where(ModelVersion.id == version_id)).one()
            model_registry.point(session, model_id, wanted.alias, number or 0, principal.user)
        detail = {"name": wanted.name, "job": wanted.job, "alias": wanted.alias}
        act = Act(principal, "model.register", version_id, project, detail)
        projects.noted_in(context.database, act)(session, version_id)
    return get_version(context.database, principal, version_id), created


def name_problems(name: str, alias: str | None = None) -> list[Problem]:
    """What is wrong with a name for a model, or with an alias."""
    problems = []
    if not NAME.fullmatch(name) or JOB_ID.fullmatch(name):
        problems.append(Problem("name", "must be 1 to 100 letters, digits, dots, dashes or underscores, and no id"))
    if name in MODELS:
        problems.append(Problem("name", f"{name!r} is a network; name the model for what it was trained to do"))
    if alias is not None:
        problems += alias_problems(alias)
    return problems


def alias_problems(alias: str) -> list[Problem]:
    """What is wrong with an alias."""
    if ALIAS.fullmatch(alias):
        return []
    what = "must be 1 to 50 small letters, digits, dashes or underscores, a letter first, such as champion"
    return [Problem("alias", what)]


def _job_problems(job: Mapping[str, Any]) -> list[Problem]:
    if job["kind"] not in ("train", "cross_validate"):
        return [Problem("job", f"job {job['id']} is a {job['kind']}; only trainings and cross-validations make models")]
    if job["state"] != "succeeded":
        return [Problem("job", f"job {job['id']} is {job['state']}; only one that succeeded has a model")]
    return []


def _facts(store: ArtifactStore, session: Session, job: Mapping[str, Any], note: str | None) -> Facts:
    parts = {"": job["id"]}
    if job["kind"] == "cross_validate":
        folds = select(Job.id).where(Job.parent_id == job["id"], Job.superseded_by.is_(None)).order_by(Job.position)
        parts = {f"fold-{number}/": fold for number, fold in enumerate(session.scalars(folds))}
    files: dict[str, Any] = {}
    for place, job_id in parts.items():
        found = _artifacts(session, job_id, (WEIGHTS, CARD, SPLIT))
        if lacking := sorted({WEIGHTS, CARD} - found.keys()):
            raise InvalidInput.one("job", f"job {job_id} has no {', '.join(lacking)}; train it anew")
        files |= {f"{place}{name}": file for name, file in found.items()}
    files |= _artifacts(session, job["id"], (MODEL_CARD,))
    first = next(iter(parts))
    card = _card(store, files[f"{first}{CARD}"])
    dataset = session.get(Dataset, job["dataset_id"])
    ran = select(Attempt.version).where(Attempt.job_id.in_(parts.values())).order_by(Attempt.started_at.desc())
    provenance = {
        "job": job["id"],
        "kind": job["kind"],
        "trained_by": job["created_by"],
        "finished_at": job["finished_at"],
        "dataset": job["dataset"],
        "dataset_id": job["dataset_id"],
        "dataset_version": job["dataset_version"],
        "dataset_digest": card.get("dataset_digest") or (dataset.digest if dataset else None),
        "split_digest": card.get("split_digest"),
        "code": session.scalar(ran.limit(1)),
        "spec": job["spec"],
    }
    return Facts("trained", str(job["id"]), len(parts), card, job["summary"], provenance, files, note)


def _artifacts(session: Session, job_id: str, names: Sequence[str]) -> dict[str, Any]:
    rows = session.scalars(select(Artifact).where(Artifact.job_id == job_id, Artifact.name.in_(names)))
    return {row.name: {"key": row.key, "sha256": row.sha256, "size": row.size} for row in rows}


def _card(store: ArtifactStore, file: Mapping[str, Any]) -> dict[str, Any]:
    with store.open(str(file["key"])) as stream:
        content = stream.read(MOST_CARD_BYTES + 1)
    try:
        card = json.loads(content) if len(content) <= MOST_CARD_BYTES else None
    except ValueError:
        card = None
    if not isinstance(card, dict):
        raise InvalidInput.one("job", f"its {CARD} is damaged; train it anew")
    return card


# ── Naming ────────────────────────────────────────────────────────────────────────────────────────────────────────


def find_model(session: Session, principal: Principal, name_or_id: str) -> RegisteredModel:
    """The row of a model, by id, `PROJECT/NAME` or name; of several that are seen under a name one's own.

    Raises:
        NotFound: naming those that exist.
        Conflict: several projects have one of that name.
    """
    seen = select(RegisteredModel).where(visible(principal))
    project, slash, name = name_or_id.rpartition("/")
    wanted = (RegisteredModel.id == name) | (RegisteredModel.name == name)
    rows = session.scalars(
        seen.where(wanted, RegisteredModel.project == project) if slash else seen.where(wanted)
    ).all()
    own = [row for row in rows if row.project == personal(principal.user) or row.id == name]
    if len(rows) > 1 and not own:
        told = ", ".join(f"{row.id} in {row.project}" for row in rows)
        raise Conflict(f"several models are called {name_or_id!r}; name one by its id: {told}")
    if rows:
        return (own or list(rows))[0]
    names = session.scalars(seen.with_only_columns(RegisteredModel.name).order_by(RegisteredModel.name).limit(10)).all()
    known = f"registered: {', '.join(names)}" if names else "none is registered yet"
    raise NotFound(f"there is no model {name_or_id!r}; {known}")


def find_version(session: Session, principal: Principal, reference: str) -> tuple[RegisteredModel, ModelVersion]:
    """The model and the version that `NAME`, `NAME@3`, `NAME@alias`, or the id of a version stands for now.

    Raises:
        NotFound, Conflict: as `find_model`; there is no such version or alias, or none that is ready.
    """
    by_id = select(RegisteredModel, ModelVersion).join(ModelVersion, ModelVersion.model_id == RegisteredModel.id)
    found = session.execute(by_id.where(ModelVersion.id == reference, visible(principal))).first()
    if found is not None:
        return found[0], found[1]
    name, at, which = reference.rpartition("@")
    model = find_model(session, principal, name if at else reference)
    return model, version_of(session, model, which if at else None)


def version_of(session: Session, model: RegisteredModel, which: str | None) -> ModelVersion:
    """A model's version by number or alias; None: the newest that is ready. Raises NotFound."""
    versions = select(ModelVersion).where(ModelVersion.model_id == model.id)
    if which is None:
        newest = versions.where(ModelVersion.state == "ready").order_by(ModelVersion.number.desc())
        row = session.scalar(newest.limit(1))
        what = f"model {model.name!r} has no version that is ready"
    elif which.isascii() and which.isdigit() and len(which) < 10:
        row = session.scalar(versions.where(ModelVersion.number == int(which)))
        what = f"model {model.name!r} has no version {which}"
    else:
        aliased = versions.join(ModelAlias, ModelAlias.version_id == ModelVersion.id)
        row = session.scalar(aliased.where(ModelAlias.model_id == model.id, ModelAlias.alias == which))
        what = f"model {model.name!r} has no alias {which!r}"
    if row is None:
        raise NotFound(f"{what}; it has: {_has(session, model)}")
    return row


def _has(session: Session, model: RegisteredModel) -> str:
    numbers = select(ModelVersion.number).where(ModelVersion.model_id == model.id, ModelVersion.state == "ready")
    ready = [str(number) for number in session.scalars(numbers.order_by(ModelVersion.number.desc()).limit(10))]
    return ", ".join([*ready, *_aliases(session, model.id)]) or "nothing"


@dataclass(frozen=True)
class Chosen:
    """An exact version that a job is to use. name: `NAME@3`; files: what of it is there."""

    id: str
    name: str
    members: int
    card: Mapping[str, Any]
    files: frozenset[str] = field(default_factory=frozenset)


def choose(database: Database, principal: Principal, reference: str) -> Chosen:
    """The version that a reference stands for now. Raises NotFound, Conflict: it can't be used."""
    with database.read() as session:
        model, version = find_version(session, principal, reference)
    if version.state != "ready":
        raise Conflict(f"version {version.number or version.id} of model {model.name!r} is {version.state}")
    return Chosen(version.id, f"{model.name}@{version.number}", version.members, version.card, frozenset(version.files))


# ── Looking ───────────────────────────────────────────────────────────────────────────────────────────────────────


def list_models(
    database: Database, principal: Principal, q: str | None = None, cursor: str | None = None, limit: int = 50
) -> Page:
    """Models that have a version, the newest first."""
    query = select(RegisteredModel).where(visible(principal)).order_by(RegisteredModel.id.desc()).limit(limit + 1)
    if q:
        query = query.where(RegisteredModel.name.icontains(q, autoescape=True))
    if cursor:
        query = query.where(RegisteredModel.id < cursor)
    with database.read() as session:
        rows = session.scalars(query).all()
        items = [_model(session, row) for row in rows[:limit]]
    return Page(items, items[-1]["id"] if len(rows) > limit else None)


def get_model(database: Database, principal: Principal, name_or_id: str) -> dict[str, Any]:
    """A model with what its aliases stand for. Raises NotFound, Conflict."""
    with database.read() as session:
        return _model(session, find_model(session, principal, name_or_id.partition("@")[0]))


def list_versions(database: Database, principal: Principal, name_or_id: str) -> list[dict[str, Any]]:
    """Versions of a model, newest first, those that were refused or removed among them. Raises NotFound, Conflict."""
    with database.read() as session:
        model = find_model(session, principal, name_or_id)
        query = select(ModelVersion).where(ModelVersion.model_id == model.id, ModelVersion.state != "duplicate")
        rows = session.scalars(query.order_by(ModelVersion.id.desc())).all()
        aliases = _aliases(session, model.id)
        return [version_json(model, row, aliases) for row in rows]


def get_version(database: Database, principal: Principal, reference: str) -> dict[str, Any]:
    """A version, as `find_version` takes it; in place of one whose content was there already, that. Raises NotFound,
    Conflict."""
    with database.read() as session:
        model, row = find_version(session, principal, reference)
        if row.same_as is not None:
            row = session.get_one(ModelVersion, row.same_as)
        return version_json(model, row, _aliases(session, model.id))


def newest_versions(database: Database, principal: Principal, model_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The newest version that is ready of each of some models, by the model's id; models without one are left out."""
    is_ready = (ModelVersion.model_id.in_(model_ids), ModelVersion.state == "ready")
    newest = select(ModelVersion.model_id, func.max(ModelVersion.number).label("number")).where(*is_ready)
    last = newest.group_by(ModelVersion.model_id).subquery()
    is_last = (ModelVersion.model_id == last.c.model_id) & (ModelVersion.number == last.c.number)
    query = select(RegisteredModel, ModelVersion).join(ModelVersion, ModelVersion.model_id == RegisteredModel.id)
    with database.read() as session:
        rows = session.execute(query.join(last, is_last).where(visible(principal))).all()
    return {model.id: version_json(model, row, {}) for model, row in rows}


def versions_of_job(database: Database, principal: Principal, job_id: str) -> list[dict[str, Any]]:
    """Versions that are ready and came from a job, as far as one sees them, in the order of registration."""
    query = select(RegisteredModel, ModelVersion).join(ModelVersion, ModelVersion.model_id == RegisteredModel.id)
    query = query.where(ModelVersion.job_id == job_id, ModelVersion.state == "ready", visible(principal))
    with database.read() as session:
        return [version_json(model, row, {}) for model, row in session.execute(query.order_by(ModelVersion.id))]


def _aliases(session: Session, model_id: str) -> dict[str, int]:
    query = select(ModelAlias.alias, ModelVersion.number).join(ModelVersion, ModelVersion.id == ModelAlias.version_id)
    rows = session.execute(query.where(ModelAlias.model_id == model_id).order_by(ModelAlias.alias))
    return {alias: number for alias, number in rows if number is not None}


def _model(session: Session, row: RegisteredModel) -> dict[str, Any]:
    versions = select(func.count(), func.max(ModelVersion.number)).where(ModelVersion.model_id == row.id)
    ready, newest = session.execute(versions.where(ModelVersion.state == "ready")).one()
    return {
        "kind": "registered",
        "id": row.id,
        "name": row.name,
        "project": row.project,
        "versions": ready,
        "newest": newest,
        "aliases": _aliases(session, row.id),
        "created_by": row.created_by,
        "created_at": timestamp(row.created_at),
    }


def version_json(model: RegisteredModel, row: ModelVersion, aliases: Mapping[str, int]) -> dict[str, Any]:
    """What people are shown of a version. What is not known before it has been read is empty until then."""
    return {
        "id": row.id,
        "model": model.name,
        "model_id": model.id,
        "project": model.project,
        "version": row.number,
        "aliases": [alias for alias, number in aliases.items() if number == row.number],
        "state": row.state,
        "source": row.source,
        "job": row.job_id,
        "error": row.error,
        "findings": row.findings,
        "note": row.note,
        "digest": row.digest or None,
        "members": row.members,
        "card": row.card,
        "metrics": row.metrics,
        "provenance": row.provenance,
        "files": {name: {"sha256": f["sha256"], "size": f["size"]} for name, f in sorted(row.files.items())},
        "intended_use": INTENDED_USE,
        "created_by": row.created_by,
        "created_at": timestamp(row.created_at),
        "ready_at": timestamp(row.ready_at),
        "removed_by": row.removed_by,
        "removed_at": timestamp(row.removed_at),
    }


# ── Changing ──────────────────────────────────────────────────────────────────────────────────────────────────────


def require(database: Database, principal: Principal, name_or_id: str) -> None:
    """Raises NotFound or Conflict where somebody sees no such model, Forbidden where they may not change it."""
    with database.read() as session:
        project = find_model(session, principal, name_or_id).project
    projects.require(database, principal, project, "researcher")


def point(
    database: Database, principal: Principal, name: str, alias: str, version: int, expected: int | None = None
) -> dict[str, Any]:
    """Has an alias of a model stand for a version. Returns the model.

    Raises:
        InvalidInput: the alias is none that could be used.
        NotFound: there is no such model or version, or none that is ready.
        Conflict: the alias stood for another version than was expected.
    """
    if problems := alias_problems(alias):
        raise InvalidInput(problems)
    with database.write() as session:
        model = find_model(session, principal, name)
        before = model_registry.point(session, model.id, alias, version, principal.user, expected)
        detail = {"alias": alias, "version": version, "before": before}
        shown = _model(session, model)
        audit.append(database, session, Act(principal, "model.alias", model.id, model.project, detail))
        return shown


def drop(database: Database, principal: Principal, name: str, alias: str) -> None:
    """Forgets an alias. Raises NotFound."""
    with database.write() as session:
        model = find_model(session, principal, name)
        model_registry.drop(session, model.id, alias)
        audit.append(database, session, Act(principal, "model.alias", model.id, model.project, {"dropped": alias}))


def remove(context: Context, principal: Principal, name: str, version: str | None = None) -> None:
    """Deletes the files of a version, or of all; what they were, and came from, can still be told.

    A removal that failed half-way may be repeated.

    Raises:
        NotFound: there is none, or it was removed before.
        Conflict: jobs wait for it or run with it; their ids are told.
        StorageError: the store failed; some files are still there.
    """
    with context.database.write() as session:
        model = find_model(session, principal, name)
        if version is None:
            all_versions = select(ModelVersion).where(ModelVersion.model_id == model.id)
            rows = [row for row in session.scalars(all_versions.order_by(ModelVersion.id)) if _is_there(row)]
        else:
            rows = [version_of(session, model, version)]
        if not rows or not all(map(_is_there, rows)):
            raise NotFound(f"model {model.name!r} has no {version or 'version'} that could be removed")
        keys: dict[str, set[str]] = {}
        for row in rows:
            _refuse_if_used(session, model, row)
            keys[row.id] = model_registry.remove(session, row.id, principal.user)
        detail = {"name": model.name, "versions": [row.number for row in rows]}
        act = Act(principal, "model.remove", model.id, model.project, detail)
        audit.append(context.database, session, act)
    for version_id, own in keys.items():
        for key in sorted(own):
            context.store.delete(key)
        with context.database.write() as session:
            model_registry.forget_files(session, version_id)


def _is_there(row: ModelVersion) -> bool:
    return row.state == "ready" or (row.state == "removed" and bool(row.files))


def _refuse_if_used(session: Session, model: RegisteredModel, row: ModelVersion) -> None:
    # A job that is being submitted holds the version; it is there afterwards.
    session.execute(select(ModelVersion.id).where(ModelVersion.id == row.id).with_for_update())
    active = select(Job.id).where(Job.model_version_id == row.id, Job.state.not_in(TERMINAL), Job.parent_id.is_(None))
    ids = session.scalars(active.order_by(Job.id)).all()
    if ids:
        more = f" and {len(ids) - TOLD_JOBS} more" if len(ids) > TOLD_JOBS else ""
        what = f"{model.name}@{row.number} is in use by {', '.join(ids[:TOLD_JOBS])}{more}"
        raise Conflict(f"{what}; wait until they have ended, or cancel them")
