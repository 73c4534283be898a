"""A data set's states, and the only writer of its row. Each function is a part of its caller's transaction.

    registering ──accept──▶ ready ──remove──▶ removed     (its files go; what jobs on it were given can still be told)
         │ └──────accept──▶ duplicate                     (another version of its name has this very content)
         └────────refuse──▶ refused

A version is given when a data set becomes ready, so that versions count contents: 1, 2, …
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.orm import Session

from bgpanet.data.pack import IMAGES, INDEX
from bgpanet.registration import LOCKED_FILES
from services.database import now_ms
from services.errors import NotFound
from services.tables import Dataset

FACTS = (
    "format",
    "digest",
    "synthetic",
    "classes",
    "images",
    "groups",
    "group_unit",
    "class_counts",
    "columns",
    "licence",
    "citation",
    "locked",
    "findings",
)
"""What a registration's summary tells of a data set, under the names of the table's columns."""


def begin(session: Session, dataset_id: str, name: str, format: str, user: str, job_id: str, project: str) -> None:
    """A data set of which nothing is known yet but who registers it."""
    session.execute(
        insert(Dataset).values(
            id=dataset_id,
            project=project,
            name=name,
            version=None,
            state="registering",
            job_id=job_id,
            format=format,
            digest="",
            synthetic=False,
            classes=[],
            images=0,
            groups=0,
            group_unit="",
            class_counts=[],
            findings=[],
            files={},
            created_by=user,
            created_at=now_ms(),
        )
    )


def hold(session: Session, dataset_id: str) -> str:
    """Its state, which stays so until the transaction ends. Raises NotFound."""
    state = session.scalar(select(Dataset.state).where(Dataset.id == dataset_id).with_for_update(read=True))
    if state is None:
        raise NotFound(f"there is no data set {dataset_id}")
    return state


def accept(session: Session, dataset_id: str, facts: Mapping[str, Any], files: Mapping[str, Mapping[str, Any]]) -> str:
    """Makes it ready under the next version of its name in its project. Returns its id, or that of the version that has
    its content.

    Of two that become ready at once, one raises IntegrityError; its transaction, repeated, sees the other.
    """
    place = select(Dataset.project, Dataset.name).where(Dataset.id == dataset_id).with_for_update()
    project, name = session.execute(place).one()
    same_name = (Dataset.project == project) & (Dataset.name == name)
    versions = select(Dataset).where(same_name)
    # The last version is read before the contents: whatever is accepted after it is either seen among the contents
    # or takes the version that this one is about to ask for.
    last = session.scalar(select(func.max(Dataset.version)).where(same_name)) or 0
    same_content = versions.where(Dataset.state == "ready", Dataset.digest == facts["digest"])
    same = session.scalar(same_content.limit(1).with_for_update(read=True))
    if same is not None:
        values: dict[str, Any] = {"state": "duplicate", "same_as": same.id, "ready_at": now_ms()}
    else:
        wanted = (INDEX, IMAGES, *(LOCKED_FILES if facts["locked"] else ()))
        packed = {file: dict(files[file]) for file in wanted}
        known = {fact: facts[fact] for fact in FACTS}
        checks = dict(facts.get("checks") or {})
        values = {"state": "ready", "version": last + 1, "files": packed, "checks": checks, "ready_at": now_ms()}
        values.update(known)
    session.execute(update(Dataset).where(Dataset.id == dataset_id).values(**values))
    return dataset_id if same is None else same.id


def refuse(session: Session, dataset_id: str, error: str, findings: Sequence[Mapping[str, Any]]) -> None:
    """Closes one that can't be used, with all that was found."""
    values = {"state": "refused", "error": error, "findings": [dict(finding) for finding in findings]}
    session.execute(update(Dataset).where(Dataset.id == dataset_id, Dataset.state == "registering").values(**values))


def remove(session: Session, dataset_id: str, user: str) -> None:
    """No job can be submitted on it from here on."""
    gone = {"state": "removed", "removed_by": user, "removed_at": now_ms()}
    session.execute(update(Dataset).where(Dataset.id == dataset_id, Dataset.state != "removed").values(**gone))


def forget_files(session: Session, dataset_id: str) -> None:
    """Its files are gone."""
    session.execute(update(Dataset).where(Dataset.id == dataset_id).values(files={}))


def forget(session: Session, dataset_id: str) -> None:
    """Deletes its row, and those of its duplicates."""
    session.execute(delete(Dataset).where((Dataset.id == dataset_id) | (Dataset.same_as == dataset_id)))
