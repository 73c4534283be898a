"""Registering data sets: read, checked, packed into the artifact store, recorded. Immutable from then on."""

import re
import tempfile
from pathlib import Path

from sqlalchemy import func, insert, select
from sqlalchemy.exc import IntegrityError

from bgpanet.data.index import Index
from bgpanet.data.pack import pack
from bgpanet.data.readers import read
from bgpanet.errors import DataDamaged, InvalidInput
from services.artifacts import ArtifactStore, sha256_of
from services.database import Database, now_ms
from services.errors import Conflict, NotFound
from services.ids import new_id
from services.tables import Dataset, Job

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def register(
    database: Database, store: ArtifactStore, *, name: str, format: str, path: Path, user: str, scratch: Path
) -> tuple[Dataset, bool]:
    """Registers the folder `path`. Returns the data set, and whether it is new.

    Registering the same content under the same name again gives the one that is there.

    Raises:
        InvalidInput: with every problem of the name and the data.
        Conflict: the name stands for other content.
        StorageError: the store failed; nothing is recorded then.
    """
    if not NAME.fullmatch(name):
        raise InvalidInput.one("name", "must be 1 to 100 letters, digits, dots, dashes or underscores")
    index = read(format, path)
    known = _known(database, name, index)
    if known is not None:
        return known, False
    files = _store(store, index, scratch)
    row = Dataset(
        id=new_id(),
        name=name,
        format=format,
        digest=index.digest,
        synthetic=index.synthetic,
        classes=list(index.classes),
        images=len(index.records),
        groups=len(set(index.groups)),
        group_unit=index.group_unit,
        class_counts=_class_counts(index),
        findings=[{"level": f.level, "where": f.where, "what": f.what} for f in index.findings],
        files=files,
        created_by=user,
    )
    values = {c.name: getattr(row, c.name) for c in Dataset.__table__.columns if c.name != "created_at"}
    try:
        with database.write() as session:
            row.created_at = session.scalar(select(now_ms())) or 0
            session.execute(insert(Dataset).values(**values, created_at=row.created_at))
    except IntegrityError:
        known = _known(database, name, index)
        if known is None:
            raise
        return known, False
    return row, True


def remove(database: Database, store: ArtifactStore, dataset_id: str) -> None:
    """Forgets a data set that no job used, and its files. Raises NotFound, Conflict and StorageError."""
    with database.write() as session:
        row = session.get(Dataset, dataset_id)
        if row is None:
            raise NotFound(f"there is no data set {dataset_id}")
        jobs = session.scalar(select(func.count()).select_from(Job).where(Job.dataset_id == dataset_id))
        if jobs:
            raise Conflict(f"{jobs} jobs used data set {row.name!r}; it stays, so that they can be explained")
        files = [str(file["key"]) for file in row.files.values()]
        same_content = select(func.count()).select_from(Dataset)
        shared = session.scalar(same_content.where(Dataset.digest == row.digest, Dataset.id != row.id))
        session.delete(row)
    for key in [] if shared else files:
        store.delete(key)


def _known(database: Database, name: str, index: Index) -> Dataset | None:
    with database.read() as session:
        row = session.scalar(select(Dataset).where(Dataset.name == name))
    if row is not None and row.digest != index.digest:
        raise Conflict(f"data set {name!r} exists with other content (digest {row.digest[:12]}); take another name")
    return row


def _store(store: ArtifactStore, index: Index, scratch: Path) -> dict[str, dict[str, object]]:
    scratch.mkdir(parents=True, exist_ok=True)
    files: dict[str, dict[str, object]] = {}
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        try:
            packed = pack(index, Path(folder))
        except DataDamaged as error:
            raise InvalidInput.one("path", f"changed while it was read: {error}") from None
        for file in sorted(packed.iterdir()):
            sha256 = sha256_of(file)
            key = f"datasets/{index.digest}/{sha256}"
            store.put_file(key, file, sha256)
            files[file.name] = {"key": key, "sha256": sha256, "size": file.stat().st_size}
    return files


def _class_counts(index: Index) -> list[dict[str, object]]:
    counts = []
    for label, name in enumerate(index.classes):
        mask = index.labels == label
        counts.append({"class": name, "images": int(mask.sum()), "groups": len(set(index.groups[mask]))})
    return counts
