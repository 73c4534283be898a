"""Registered models: states of a version, and the only writer of models, versions and aliases. Each function is a part
of its caller's transaction.

    (of a finished job) ───────▶ ready ──remove──▶ removed     (its files go; what it was can still be told)
    importing ──accept──▶ ready ──┘
         │ └────accept──▶ duplicate                            (another version of its name has this very content)
         └──────refuse──▶ refused

A version is numbered when it becomes ready, so that numbers count contents: 1, 2, …; no number is given twice, also
where the version that had it was removed. Whoever adds a version or moves an alias holds the model's row.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from services.database import now_ms
from services.errors import Conflict, NotFound
from services.ids import new_id
from services.tables import Artifact, ModelAlias, ModelVersion, RegisteredModel

WEIGHTS, CARD, SPLIT = "model.safetensors", "model.json", "split.json"
Files = Mapping[str, Mapping[str, Any]]
"""Name -> {"key", "sha256", "size"}; those of a cross-validation's folds in `fold-0/`, `fold-1/`, …"""


@dataclass(frozen=True)
class Facts:
    """What is kept of a version; see `services.tables.ModelVersion`."""

    source: str
    job_id: str
    members: int
    card: Mapping[str, Any]
    metrics: Mapping[str, Any]
    provenance: Mapping[str, Any]
    files: Files
    note: str | None = None


def digest_of(files: Files) -> str:
    """SHA-256, hex, of what decides the answers: names and contents of weights and cards."""
    content = [
        f"{name} {files[name]['sha256']}" for name in sorted(files) if name.rpartition("/")[2] in (WEIGHTS, CARD)
    ]
    return hashlib.sha256("\n".join(content).encode()).hexdigest()


def named(session: Session, name: str, project: str, user: str) -> str:
    """The id of a project's model of that name, made where there is none; its row is held."""
    dialect_insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    values = {"id": new_id(), "project": project, "name": name, "created_by": user, "created_at": now_ms()}
    session.execute(dialect_insert(RegisteredModel).values(**values).on_conflict_do_nothing())
    found = select(RegisteredModel.id).where(RegisteredModel.project == project, RegisteredModel.name == name)
    return session.scalars(found.with_for_update()).one()


def add(session: Session, model_id: str, facts: Facts, user: str) -> tuple[str, bool]:
    """A version that is ready at once. Returns its id, and whether it is new: the same content is there once."""
    _held(session, model_id)
    digest = digest_of(facts.files)
    known = _with_content(session, model_id, digest)
    if known is not None:
        return known, False
    values = {name: value for name, value in vars(facts).items() if name != "files"}
    values |= {"files": {name: dict(file) for name, file in facts.files.items()}, "digest": digest}
    version_id = new_id()
    session.execute(
        insert(ModelVersion).values(
            id=version_id,
            model_id=model_id,
            number=_next(session, model_id),
            state="ready",
            findings=[],
            created_by=user,
            created_at=now_ms(),
            ready_at=now_ms(),
            **values,
        )
    )
    return version_id, True


def begin(session: Session, version_id: str, name: str, project: str, user: str, job_id: str, note: str | None) -> None:
    """A version of which nothing is known yet but the job that imports it."""
    session.execute(
        insert(ModelVersion).values(
            id=version_id,
            model_id=named(session, name, project, user),
            state="importing",
            source="imported",
            job_id=job_id,
            findings=[],
            note=note,
            digest="",
            members=0,
            card={},
            metrics={},
            provenance={},
            files={},
            created_by=user,
            created_at=now_ms(),
        )
    )


def settle(
    session: Session,
    job_id: str,
    state: str,
    summary: Mapping[str, Any],
    error: str | None,
    findings: Sequence[Mapping[str, Any]],
) -> None:
    """What follows from the end of a job that imports a version: it is ready, or refused with all that was found.

    The job's files are the version's, too, and go with it.
    """
    row = session.execute(
        select(ModelVersion.id, ModelVersion.model_id).where(
            ModelVersion.job_id == job_id, ModelVersion.state == "importing"
        )
    ).one()
    if state != "succeeded":
        why = {"state": "refused", "error": error or "importing it was cancelled", "findings": [*map(dict, findings)]}
        session.execute(update(ModelVersion).where(ModelVersion.id == row.id).values(**why))
        return
    _held(session, row.model_id)
    stored = session.scalars(select(Artifact).where(Artifact.job_id == job_id)).all()
    places = {str(artifact): str(place) for artifact, place in summary["places"].items()}
    files = {
        places[file.name]: {"key": file.key, "sha256": file.sha256, "size": file.size}
        for file in stored
        if file.name in places
    }
    digest = digest_of(files)
    known = _with_content(session, row.model_id, digest)
    values: dict[str, Any] = {"digest": digest, "ready_at": now_ms()}
    if known is not None:
        session.execute(delete(Artifact).where(Artifact.job_id == job_id))
        values |= {"state": "duplicate", "same_as": known}
    else:
        values |= {name: summary[name] for name in ("members", "card", "metrics", "provenance")}
        values |= {"state": "ready", "number": _next(session, row.model_id), "files": files}
    session.execute(update(ModelVersion).where(ModelVersion.id == row.id).values(**values))


def hold(session: Session, version_id: str) -> None:
    """A job may use it: it stays ready until the transaction ends. Raises NotFound, Conflict."""
    query = select(ModelVersion.state).where(ModelVersion.id == version_id).with_for_update(read=True)
    state = session.scalar(query)
    if state is None:
        raise NotFound(f"there is no version {version_id} of a model")
    if state != "ready":
        raise Conflict(f"version {version_id} of a model is {state}; name another")


def point(
    session: Session, model_id: str, alias: str, number: int, user: str, expected: int | None = None
) -> int | None:
    """Has an alias stand for a version from now on. Returns the number of the one that it stood for; None: none.

    expected: the number for which it must have stood until now; 0: for none; None: whatever it was.

    Raises:
        NotFound: there is no such version, or it is not ready.
        Conflict: the alias stood for another one than was expected.
    """
    _held(session, model_id)
    ready = select(ModelVersion.id).where(ModelVersion.model_id == model_id, ModelVersion.state == "ready")
    version_id = session.scalar(ready.where(ModelVersion.number == number).with_for_update(read=True))
    if version_id is None:
        raise NotFound(f"there is no version {number} that is ready")
    before = _stands_for(session, model_id, alias)
    if expected is not None and (before or 0) != expected:
        now = f"version {before}" if before else "none"
        raise Conflict(f"alias {alias!r} stands for {now}, not for {expected or 'none'}; look again before moving it")
    dialect_insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    new = {"version_id": version_id, "moved_by": user, "moved_at": now_ms()}
    statement = dialect_insert(ModelAlias).values(model_id=model_id, alias=alias, **new)
    session.execute(statement.on_conflict_do_update(index_elements=["model_id", "alias"], set_=new))
    return before


def drop(session: Session, model_id: str, alias: str) -> None:
    """Forgets an alias. Raises NotFound."""
    _held(session, model_id)
    if _stands_for(session, model_id, alias) is None:
        raise NotFound(f"there is no alias {alias!r}")
    session.execute(delete(ModelAlias).where(ModelAlias.model_id == model_id, ModelAlias.alias == alias))


def remove(session: Session, version_id: str, user: str) -> set[str]:
    """No job can be submitted with it from here on, and no alias stands for it. Returns the keys of its files that
    nothing else names."""
    model_id = session.scalars(select(ModelVersion.model_id).where(ModelVersion.id == version_id)).one()
    _held(session, model_id)
    session.execute(delete(ModelAlias).where(ModelAlias.version_id == version_id))
    gone = {"state": "removed", "removed_by": user, "removed_at": now_ms()}
    is_there = ModelVersion.state != "removed"
    session.execute(update(ModelVersion).where(ModelVersion.id == version_id, is_there).values(**gone))
    version = session.get_one(ModelVersion, version_id)
    if version.source == "imported":  # its job did nothing but bring it
        session.execute(delete(Artifact).where(Artifact.job_id == version.job_id))
    keys = {str(file["key"]) for file in version.files.values()}
    keys -= set(session.scalars(select(Artifact.key).where(Artifact.key.in_(keys))))
    for other in session.scalars(select(ModelVersion.files).where(ModelVersion.id != version_id)):
        keys -= {str(file["key"]) for file in other.values()}
    return keys


def forget_files(session: Session, version_id: str) -> None:
    """Its files are gone."""
    session.execute(update(ModelVersion).where(ModelVersion.id == version_id).values(files={}))


# ── Pieces ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _held(session: Session, model_id: str) -> None:
    session.execute(select(RegisteredModel.id).where(RegisteredModel.id == model_id).with_for_update())


def _next(session: Session, model_id: str) -> int:
    last = session.scalar(select(func.max(ModelVersion.number)).where(ModelVersion.model_id == model_id))
    return (last or 0) + 1


def _with_content(session: Session, model_id: str, digest: str) -> str | None:
    same = select(ModelVersion.id).where(ModelVersion.model_id == model_id, ModelVersion.state == "ready")
    return session.scalar(same.where(ModelVersion.digest == digest).limit(1).with_for_update(read=True))


def _stands_for(session: Session, model_id: str, alias: str) -> int | None:
    query = select(ModelVersion.number).join(ModelAlias, ModelAlias.version_id == ModelVersion.id)
    return session.scalar(query.where(ModelAlias.model_id == model_id, ModelAlias.alias == alias))
