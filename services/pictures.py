"""Small pictures of a registered data set's images, cut out of its pack where that lies in a folder of this machine.

A store elsewhere gives no part of a file for little, so pages go without pictures there.
"""

import io
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from bgpanet.data.pack import IMAGES, INDEX
from services.artifacts import ArtifactStore
from services.tables import Dataset

SIDE = 200  # pixels, at most
MOST_INDEX_BYTES = 40_000_000
MOST_IMAGE_BYTES = 50_000_000


@dataclass(frozen=True)
class Place:
    """Where an image lies in the pack, and its class; "" where it has none."""

    offset: int
    size: int
    label: str


def samples(store: ArtifactStore, dataset: Dataset, of_class: int) -> dict[str, list[str]]:
    """Up to `of_class` image ids of each class, always the same of the same data; {} where pictures can't be cut."""
    found: dict[str, list[str]] = {}
    for image_id, place in sorted(_places(store, dataset).items(), key=lambda item: (item[1].size % 97, item[0])):
        ids = found.setdefault(place.label, [])
        if len(ids) < of_class:
            ids.append(image_id)
    return {name: found[name] for name in (*dataset.classes, "") if name in found}


def can_be_shown(store: ArtifactStore, dataset: Dataset) -> bool:
    """Whether there are pictures of a data set's images."""
    return bool(_places(store, dataset)) and _path(store, dataset, IMAGES) is not None


def thumbnail(store: ArtifactStore, dataset: Dataset, image_id: str) -> bytes | None:
    """A small JPEG of one image; None where there is no such image, or it can't be cut out or read."""
    place, path = _places(store, dataset).get(image_id), _path(store, dataset, IMAGES)
    if place is None or path is None or place.size > MOST_IMAGE_BYTES:
        return None
    with path.open("rb") as pack:
        pack.seek(place.offset)
        content = pack.read(place.size)
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.draft("RGB", (SIDE, SIDE))
            small = image.convert("RGB")
            small.thumbnail((SIDE, SIDE))
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, ValueError):
        return None
    told = io.BytesIO()
    small.save(told, "JPEG", quality=85)
    return told.getvalue()


def _path(store: ArtifactStore, dataset: Dataset, name: str) -> Path | None:
    file = dataset.files.get(name)
    path = store.local_path(str(file["key"])) if file else None
    return path if path is not None and path.is_file() else None


def _places(store: ArtifactStore, dataset: Dataset) -> dict[str, Place]:
    path = _path(store, dataset, INDEX)
    if path is None or path.stat().st_size > MOST_INDEX_BYTES:
        return {}
    return _index(path, dataset.digest)


@lru_cache(maxsize=4)
def _index(path: Path, digest: str) -> dict[str, Place]:
    """digest: of the data set, so that another one at the same path is another entry."""
    told = json.loads(path.read_bytes())
    classes = told["classes"]
    return {
        row["image_id"]: Place(row["offset"], row["size"], "" if row["label"] is None else classes[row["label"]])
        for row in told["records"]
    }
