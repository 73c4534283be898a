"""A registered data set's form: `index.json` and one uncompressed `images.tar`, read in place by offset."""

import hashlib
import io
import os
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from bgpanet.data.cleaning import clean
from bgpanet.data.index import Finding, ImageRecord, Index
from bgpanet.errors import InvalidInput, Problem

INDEX, IMAGES = "index.json", "images.tar"


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Record(_Strict):
    image_id: str
    offset: int
    size: int
    sha256: str
    label: int | None
    group: str
    attributes: dict[str, str]


class _Finding(_Strict):
    level: Literal["refused", "excluded", "warned"]
    where: str
    what: str
    rows: tuple[str, ...] = ()
    count: int = 0


class _Index(_Strict):
    version: Literal[1] = 1
    digest: str
    format: str
    classes: tuple[str, ...]
    group_unit: str
    synthetic: bool
    findings: tuple[_Finding, ...]
    records: tuple[_Record, ...]


def pack(index: Index, folder: Path, progress: Callable[[int, int], None] | None = None) -> Path:
    """Writes both files into `folder`, the index last. The same data gives the same bytes. Returns the folder.

    Nothing but pixels is written, whoever made the index; its digest is that of what is written.

    Raises:
        DataDamaged: an image is not any more what it was when it was indexed.
        OSError: the files could not be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    records = []
    stored = []
    partial = folder / f".{IMAGES}"
    with partial.open("wb") as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for number, source in enumerate(index.records, start=1):
                content = clean(source.read_bytes()).content
                record = replace(source, sha256=hashlib.sha256(content).hexdigest(), size=len(content))
                stored.append(record)
                member = tarfile.TarInfo(f"images/{record.image_id}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
                start = tar.offset - -(-len(content) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
                records.append(
                    _Record(
                        image_id=record.image_id,
                        offset=start,
                        size=len(content),
                        sha256=record.sha256,
                        label=record.label,
                        group=record.group,
                        attributes=dict(record.attributes),
                    )
                )
                if progress is not None:
                    progress(number, len(index.records))
        file.flush()
        os.fsync(file.fileno())
    partial.replace(folder / IMAGES)
    written = _Index(
        digest=replace(index, records=tuple(stored)).digest,
        format=index.format,
        classes=index.classes,
        group_unit=index.group_unit,
        synthetic=index.synthetic,
        findings=tuple(_Finding(**vars(finding)) for finding in index.findings),
        records=tuple(records),
    )
    partial = folder / f".{INDEX}"
    partial.write_text(written.model_dump_json(), encoding="utf-8")
    partial.replace(folder / INDEX)
    return folder


def read_pack(folder: Path, progress: Callable[[int, int], None] | None = None) -> Index:
    """The index of a packed data set. Each image's digest is checked when it is read. Raises InvalidInput."""
    try:
        stored = _Index.model_validate_json((folder / INDEX).read_bytes())
    except OSError as error:
        raise InvalidInput.one(str(folder / INDEX), f"can't be read: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise InvalidInput([Problem(str(folder / INDEX), f"is damaged: {first['msg']}")]) from None
    images = folder / IMAGES
    index = Index(
        format=stored.format,
        classes=stored.classes,
        records=tuple(
            ImageRecord(r.image_id, images, r.offset, r.size, r.sha256, r.label, r.group, r.attributes)
            for r in stored.records
        ),
        group_unit=stored.group_unit,
        findings=tuple(Finding(**dict(finding)) for finding in stored.findings),
        synthetic=stored.synthetic,
    )
    if index.digest != stored.digest:
        raise InvalidInput.one(str(folder / INDEX), "does not match its own digest; fetch the data set again")
    return index
