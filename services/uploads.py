"""Files that people send in parts: begun, sent as often as it takes, completed, and removed when nobody needs them.

Which parts are there is known by the artifact store alone. One that is in none of
somebody's projects does not exist for them (`NotFound`).
"""

import logging
import re
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

from sqlalchemy import ColumnElement, delete, func, insert, or_, select, update

from bgpanet.errors import InvalidInput, Problem
from services import audit, projects
from services.audit import Act
from services.context import Context
from services.database import Database, now_ms
from services.errors import Conflict, Damaged, Forbidden, NotFound, StorageError
from services.ids import new_id
from services.tables import Dataset, Job, ModelVersion, Upload
from services.tokens import Principal
from services.views import timestamp

PART_BYTES = 16 * 1024 * 1024
MOST_PARTS = 9_000  # S3 takes 10,000
MOST_OPEN = 20  # of one user
KEPT_MS = 7 * 24 * 3600 * 1000
TOLD_PARTS = 20
DONE = ("ready", "duplicate", "removed")  # states of data sets and models whose upload nobody needs any more
NAME = re.compile(r"[^/\\\0\r\n]{1,200}")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class NewUpload:
    """What somebody is about to send. sha256: of the whole, hex."""

    name: str
    size: int
    sha256: str
    project: str | None = None


def begin(context: Context, principal: Principal, new: NewUpload) -> tuple[dict[str, Any], bool]:
    """Makes room for a file. Returns the upload as shown to people, and whether it is new.

    The same content again goes on with what is there of it.

    Raises:
        InvalidInput: it is too large, or its name can't be one.
        Conflict: too many uploads of this user are unfinished.
    """
    problems = []
    if not NAME.fullmatch(new.name):
        problems.append(Problem("name", "must be a file's name, without its folder"))
    if new.size > context.settings.upload_bytes:
        problems.append(Problem("size", f"must be at most {context.settings.upload_bytes} bytes"))
    try:
        new = replace(new, project=projects.chosen(context.database, principal, new.project))
    except (NotFound, Forbidden) as error:
        problems.append(Problem("project", str(error)))
    if problems:
        raise InvalidInput(problems)
    mine = select(Upload).where(Upload.created_by == principal.user, Upload.state != "expired")
    same = (
        mine.where(Upload.project == new.project, Upload.sha256 == new.sha256, Upload.size == new.size)
        .order_by(Upload.id.desc())
        .limit(1)
    )
    with context.database.read() as session:
        known = session.scalar(same)
        unfinished = session.scalar(select(func.count()).select_from(mine.where(Upload.state == "open").subquery()))
    if known is not None:
        return _shown(context, known), False
    if (unfinished or 0) >= MOST_OPEN:
        raise Conflict(f"{unfinished} of your uploads are unfinished; finish or delete some of them")
    upload_id = new_id()
    key = f"uploads/{upload_id}"
    parts_id = context.store.begin_parts(key)
    part_size = max(PART_BYTES, -(-new.size // MOST_PARTS))
    with context.database.write() as session:
        session.execute(
            insert(Upload).values(
                id=upload_id,
                **vars(new),
                part_size=part_size,
                state="open",
                key=key,
                parts_id=parts_id,
                created_by=principal.user,
                created_at=now_ms(),
            )
        )
        act = Act(principal, "upload.begin", upload_id, new.project, {"name": new.name, "size": new.size})
        projects.noted_in(context.database, act)(session, upload_id)
    return get(context, principal, upload_id), True


def get(context: Context, principal: Principal, upload_id: str) -> dict[str, Any]:
    """What is there of an upload. Raises NotFound, StorageError."""
    return _shown(context, find(context, principal, upload_id))


def find(context: Context, principal: Principal, upload_id: str) -> Upload:
    """The row of an upload. Raises NotFound."""
    seen = projects.visible(principal, Upload.project)
    with context.database.read() as session:
        row = session.scalar(select(Upload).where(Upload.id == upload_id, Upload.state != "expired", seen))
    if row is None:
        raise NotFound(f"there is no upload {upload_id}")
    return row


def _find_to_change(context: Context, principal: Principal, upload_id: str) -> Upload:
    """The same for somebody who changes it. Raises NotFound, Forbidden."""
    row = find(context, principal, upload_id)
    projects.require(context.database, principal, row.project, "researcher")
    return row


def put_part(
    context: Context, principal: Principal, upload_id: str, number: int, source: BinaryIO, length: int, sha256: str
) -> None:
    """Stores one part out of a stream of `length` bytes.

    Raises:
        NotFound: there is no such upload, or it has no such part.
        InvalidInput: the part must have another length.
        Conflict: the upload is complete.
        Damaged: what arrived is not what was announced.
    """
    row = _find_to_change(context, principal, upload_id)
    size = part_size(row, number)
    if row.state != "open":
        raise Conflict(f"upload {upload_id} is {row.state}")
    if length != size:
        raise InvalidInput.one("Content-Length", f"part {number} has {size} bytes, not {length}")
    context.store.put_part(row.key, row.parts_id, number, source, size, sha256)


def part_address(context: Context, principal: Principal, upload_id: str, number: int) -> dict[str, Any]:
    """Where a part is to be sent by PUT; `address` is None where it is this service. Raises NotFound, Conflict."""
    row = _find_to_change(context, principal, upload_id)
    size = part_size(row, number)
    if row.state != "open":
        raise Conflict(f"upload {upload_id} is {row.state}")
    return {"number": number, "size": size, "address": context.store.part_address(row.key, row.parts_id, number)}


def part_size(row: Upload, number: int) -> int:
    """Bytes of a part. Raises NotFound."""
    parts = _parts(row)
    if not 1 <= number <= parts:
        raise NotFound(f"upload {row.id} has no part {number}; they are 1 to {parts}")
    return row.part_size if number < parts else row.size - row.part_size * (parts - 1)


def complete(context: Context, principal: Principal, upload_id: str) -> dict[str, Any]:
    """Makes the parts a file that is what was announced; repeating it is safe.

    Raises:
        Conflict: parts are missing.
        Damaged: the whole is something else; the upload is gone then.
    """
    row = _find_to_change(context, principal, upload_id)
    if row.state == "complete":
        return _shown(context, row)
    missing = _missing(row, _received(context, row))
    if missing:
        more = f" and {len(missing) - TOLD_PARTS} more" if len(missing) > TOLD_PARTS else ""
        raise Conflict(f"parts are missing: {', '.join(map(str, missing[:TOLD_PARTS]))}{more}")
    try:
        context.store.finish_parts(row.key, row.parts_id, row.sha256)
    except Damaged:
        remove(context, principal, upload_id)
        raise
    with context.database.write() as session:
        session.execute(update(Upload).where(Upload.id == upload_id, Upload.state == "open").values(state="complete"))
        audit.append(context.database, session, Act(principal, "upload.complete", upload_id, row.project))
    return get(context, principal, upload_id)


def used(database: Database, upload_id: str, dataset_id: str) -> None:
    """A data set is being registered from it."""
    with database.write() as session:
        session.execute(update(Upload).where(Upload.id == upload_id).values(dataset_id=dataset_id))


def remove(context: Context, principal: Principal, upload_id: str) -> None:
    """Deletes an upload. Raises NotFound; Conflict while a data set is registered or a model imported from it."""
    row = _find_to_change(context, principal, upload_id)
    with context.database.write() as session:
        being_read = or_(*_becomes("registering", "importing"))
        taken = session.execute(
            update(Upload).where(Upload.id == row.id, ~being_read).values(state="expired").returning(Upload.id)
        ).first()
        if taken is not None:
            audit.append(context.database, session, Act(principal, "upload.remove", upload_id, row.project))
    if taken is None:
        made = f"data set {row.dataset_id} is being registered" if row.dataset_id else "a model is being imported"
        raise Conflict(f"{made} from upload {upload_id}")
    _drop(context, row)


def sweep(context: Context) -> list[str]:
    """Removes uploads that became a data set or a model, or are older than a week. Returns their ids.

    Raises SQLAlchemyError.
    """
    being_read, served = or_(*_becomes("registering", "importing")), or_(*_becomes(*DONE))
    old = Upload.created_at < now_ms() - KEPT_MS
    with context.database.write() as session:
        session.execute(update(Upload).where((old | served) & ~being_read).values(state="expired"))
        expired = session.scalars(select(Upload).where(Upload.state == "expired")).all()
    gone = []
    for row in expired:
        try:
            _drop(context, row)
            gone.append(row.id)
        except StorageError as error:
            log.warning("upload %s stays until the next sweep: %s", row.id, error)
    return gone


def _becomes(*states: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    """Whether an upload's data set, and whether its model, is in one of these states."""
    of_dataset = select(Dataset.id).where(Dataset.id == Upload.dataset_id)
    of_model = select(ModelVersion.id).join(Job, Job.id == ModelVersion.job_id)
    of_model = of_model.where(Job.kind == "import", Job.spec["source"].as_string() == Upload.id)
    return of_dataset.where(Dataset.state.in_(states)).exists(), of_model.where(ModelVersion.state.in_(states)).exists()


def _drop(context: Context, row: Upload) -> None:
    context.store.drop_parts(row.key, row.parts_id)
    context.store.delete(row.key)
    with context.database.write() as session:
        session.execute(delete(Upload).where(Upload.id == row.id))


def _parts(row: Upload) -> int:
    return -(-row.size // row.part_size)


def _received(context: Context, row: Upload) -> list[int]:
    """Numbers of the parts that are there whole."""
    if row.state == "complete" or context.store.exists(row.key):
        return list(range(1, _parts(row) + 1))
    found = context.store.parts(row.key, row.parts_id)
    return sorted(n for n, size in found.items() if 1 <= n <= _parts(row) and size == part_size(row, n))


def _missing(row: Upload, received: list[int]) -> list[int]:
    return sorted(set(range(1, _parts(row) + 1)) - set(received))


def _shown(context: Context, row: Upload) -> dict[str, Any]:
    return {
        "id": row.id,
        "project": row.project,
        "name": row.name,
        "size": row.size,
        "sha256": row.sha256,
        "state": row.state,
        "part_size": row.part_size,
        "parts": _parts(row),
        "received": _received(context, row),
        "dataset": row.dataset_id,
        "created_by": row.created_by,
        "created_at": timestamp(row.created_at),
        "expires_at": timestamp(row.created_at + KEPT_MS),
    }
