"""A registered model as one zip: weights and spec of each member, its card, where it came from, and digests of all."""

import io
import json
import zipfile
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from services.artifacts import PIECE_BYTES, ArtifactStore
from services.database import Database
from services.errors import Conflict
from services.model_registry import SPLIT
from services.models import MODEL_CARD, MOST_CARD_BYTES, find_version, version_json
from services.tables import ModelVersion
from services.tokens import Principal

ABOUT, DIGESTS = "about.json", "SHA256SUMS"


def bundled(database: Database, principal: Principal, reference: str) -> tuple[str, ModelVersion, dict[str, Any]]:
    """Name of the file, row, and what is shown of the version that is to be exported. Raises NotFound, Conflict."""
    with database.read() as session:
        model, row = find_version(session, principal, reference)
    if row.state != "ready":
        raise Conflict(f"version {row.number or row.id} of model {model.name!r} is {row.state}")
    about = version_json(model, row, {})
    told = ("model", "version", "source", "digest", "members", "metrics", "provenance", "note", "intended_use")
    return f"{model.name}-{row.number}.zip", row, {name: about[name] for name in (*told, "created_by", "ready_at")}


def card_text(store: ArtifactStore, database: Database, principal: Principal, reference: str) -> str | None:
    """The card for people that a version came with, as Markdown; None: it has none, or one that is no text. Raises
    NotFound, Conflict, StorageError."""
    with database.read() as session:
        _, row = find_version(session, principal, reference)
    file = row.files.get(MODEL_CARD)
    if file is None or int(file["size"]) > MOST_CARD_BYTES:
        return None
    with store.open(str(file["key"])) as source:
        try:
            return source.read().decode()
        except UnicodeDecodeError:
            return None


def zipped(store: ArtifactStore, row: ModelVersion, about: dict[str, Any]) -> Iterator[bytes]:
    """The zip, piece by piece; never whole in memory. The same bytes for the same version. Which images it was trained
    with stays here: their ids may be those of patients. Raises StorageError."""
    files = {name: file for name, file in sorted(row.files.items()) if name.rpartition("/")[2] != SPLIT}
    out = _Pieces()
    at = datetime.fromisoformat(str(about["ready_at"])).timetuple()[:6]
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, file in files.items():
            info = zipfile.ZipInfo(name, at)
            info.file_size = int(file["size"])
            with store.open(str(file["key"])) as source, archive.open(info, "w") as target:
                while piece := source.read(PIECE_BYTES):
                    target.write(piece)
                    yield out.taken()
        archive.writestr(zipfile.ZipInfo(ABOUT, at), json.dumps(about, indent=2, ensure_ascii=False))
        sums = "".join(f"{file['sha256']}  {name}\n" for name, file in files.items())
        archive.writestr(zipfile.ZipInfo(DIGESTS, at), sums)
    yield out.taken()


class _Pieces(io.RawIOBase):
    """A file that is only written, and handed on as it comes."""

    def __init__(self) -> None:
        super().__init__()
        self._waiting = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._waiting += data
        return len(data)

    def taken(self) -> bytes:
        """What was written since it was asked last."""
        piece = bytes(self._waiting)
        self._waiting.clear()
        return piece
