"""The index of a data set: which images there are, what they show, and which of them belong together."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from bgpanet.data.cleaning import clean
from bgpanet.errors import DataDamaged

Level = Literal["refused", "excluded", "warned"]


@dataclass(frozen=True)
class Finding:
    """Something that a check found. `refused` makes a data set unusable; `excluded` rows stay in the index, but no
    training or test uses them; `warned` tells. rows: ids of the images concerned, the first of `count`."""

    level: Level
    where: str
    what: str
    rows: tuple[str, ...] = ()
    count: int = 0


@dataclass(frozen=True)
class ImageRecord:
    """One image: `size` bytes at `offset` of the file `path`.

    sha256: of what `read_bytes` gives, so the same for an image with metadata and for its clean copy. label: position
    in the index's classes, None if unknown. group: what must not be torn apart by a split (a lesion). attributes:
    whatever else the source tells of it, as text.
    """

    image_id: str
    path: Path
    offset: int
    size: int
    sha256: str
    label: int | None
    group: str
    attributes: Mapping[str, str] = field(default_factory=dict)

    def read_bytes(self) -> bytes:
        """The encoded image, without metadata. Raises DataDamaged: it is not what was indexed, or can't be read."""
        return self.cleaned(self.read_source())

    def read_source(self) -> bytes:
        """The bytes as they lie there: with what cameras and programs wrote beside the pixels. Raises DataDamaged."""
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset)
                return file.read(self.size)
        except OSError as error:
            raise DataDamaged(f"image {self.image_id}: {self.path} can't be read: {error.strerror}") from None

    def cleaned(self, source: bytes) -> bytes:
        """What of `source` may be stored. Raises DataDamaged where it is not what was indexed."""
        if hashlib.sha256(source).hexdigest() == self.sha256:
            return source
        content = clean(source).content
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise DataDamaged(f"image {self.image_id}: {self.path} has changed since the data set was registered")
        return content


@dataclass(frozen=True)
class Index:
    """A data set. `group_unit` says what a group is: lesion, patient, image. Records are ordered by image id, so that
    positions, and with them pixels and splits, mean the same wherever the data set was read."""

    format: str
    classes: tuple[str, ...]
    records: tuple[ImageRecord, ...]
    group_unit: str
    findings: tuple[Finding, ...] = ()
    synthetic: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "records", tuple(sorted(self.records, key=lambda record: record.image_id)))

    @cached_property
    def labels(self) -> np.ndarray:
        """(N,) int64, -1 where unknown."""
        return np.array([-1 if record.label is None else record.label for record in self.records], dtype=np.int64)

    @cached_property
    def groups(self) -> np.ndarray:
        """(N,) text."""
        return np.array([record.group for record in self.records], dtype=np.str_)

    @cached_property
    def digest(self) -> str:
        """SHA-256, hex, over everything that is known of the images, their content without metadata included: the
        same wherever the files lie and however they are packed."""
        rows = [[r.image_id, r.sha256, r.label, r.group, sorted(r.attributes.items())] for r in self.records]
        whole = [list(self.classes), self.group_unit, self.synthetic, rows]
        return hashlib.sha256(json.dumps(whole).encode()).hexdigest()


def join_groups(names: Iterable[str], pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The name of each group after joining pairs: the smallest name among those joined, directly or by others."""
    parent = {name: name for name in names}

    def root(name: str) -> str:
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    for first, second in pairs:
        a, b = sorted((root(first), root(second)))
        parent[b] = a
    return {name: root(name) for name in parent}


def identical_images(records: Iterable[tuple[str, str, str]]) -> list[list[tuple[str, str]]]:
    """Sets of two and more byte-identical images, each a list of (image id, group), from (id, group, sha256). Empty
    files have nothing in common."""
    found: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
    for image_id, group, sha256 in records:
        found[sha256].append((image_id, group))
    found.pop(hashlib.sha256(b"").hexdigest(), None)
    return [sorted(same) for same in found.values() if len(same) > 1]
