"""Arrays as MedMNIST has them (Yang et al. 2023, doi 10.1038/s41597-022-01721-8): the folder's only `.npz`.

    train_images, val_images, test_images   (N, H, W) or (N, H, W, 3) uint8, grey or RGB
    train_labels, val_labels, test_labels   optional: (N,) or (N, 1) integers

Each part that is there is read, and named by the attribute `part`. Classes are the labels, or the names that
`dataset.yaml` gives them. Nothing tells which images show the same lesion or patient, so each is its own group.

Pickles are never loaded. Images are unpacked once into a file without a name, in the folder for temporary files
(`TMPDIR`), that is gone with the process: memory does not grow with the data set.
"""

import math
import os
import shutil
import tempfile
import weakref
import zipfile
import zlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from bgpanet.data.index import Index
from bgpanet.data.readers.about import about
from bgpanet.data.readers.draft import Draft, Progress, Row
from bgpanet.data.readers.png import encode_png
from bgpanet.errors import InvalidInput, Problem

PARTS = ("train", "val", "test")
MOST_SIDE = 4096  # pixels
MOST_RATIO = 100  # of unpacked over packed bytes of images; more is a bomb
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)


class Images:
    """(N, H, W) or (N, H, W, 3) uint8 in a file without a name, which is gone with this object."""

    def __init__(self, file: IO[bytes], shape: tuple[int, ...]) -> None:
        self.shape = shape
        self._descriptor = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._descriptor)

    def png(self, n: int) -> bytes:
        """Image n, encoded. Raises OSError."""
        size = math.prod(self.shape[1:])
        content = os.pread(self._descriptor, size, n * size)
        return encode_png(np.frombuffer(content, np.uint8).reshape(self.shape[1:]))


@dataclass(frozen=True)
class Part:
    """labels: (N,) int64, -1 where unknown."""

    name: str
    images: Images
    labels: npt.NDArray[np.int64]


def read(path: Path, progress: Progress | None = None) -> Index:
    """The index. Raises InvalidInput with every problem."""
    told = about(path, names_classes=True)
    file = _file(path)
    parts = _parts(file)
    labels = sorted({int(label) for part in parts for label in np.unique(part.labels)} - {-1})
    names = dict(enumerate(told.classes)) if told.classes else {label: str(label) for label in labels}
    draft = Draft("npz", path, told, tuple(names.values()), "image", [])
    for part in parts:
        for n, label in enumerate(part.labels.tolist()):
            image_id = f"{part.name}_{n:06d}"
            draft.rows.append(
                Row(
                    where=f"{file.name}:{part.name}[{n}]",
                    image_id=image_id,
                    file=file,
                    label=None if label < 0 else names.get(label, str(label)),
                    group=image_id,
                    attributes={"part": part.name},
                    encode=partial(part.images.png, n),
                )
            )
    return draft.index(progress)


def _file(path: Path) -> Path:
    found = sorted(file for file in path.iterdir() if file.suffix.lower() == ".npz" and not file.name.startswith("."))
    if len(found) != 1:
        names = f" ({', '.join(file.name for file in found)})" if found else ""
        raise InvalidInput.one(str(path), f"must have exactly one .npz, not {len(found)}{names}")
    return found[0]


def _parts(file: Path) -> list[Part]:
    problems: list[Problem] = []
    parts = []
    try:
        with zipfile.ZipFile(file) as archive:
            for name in PARTS:
                if f"{name}_images.npy" in archive.namelist():
                    parts += _part(archive, name, problems)
    except DAMAGED:
        raise InvalidInput.one(file.name, "is no .npz, or is damaged") from None
    if not problems and not parts:
        problems.append(Problem(file.name, f"has none of {', '.join(f'{name}_images' for name in PARTS)}"))
    if problems:
        raise InvalidInput(problems)
    return parts


def _part(archive: zipfile.ZipFile, name: str, problems: list[Problem]) -> list[Part]:
    """The part, or problems more."""
    array = f"{name}_images"
    try:
        images = _images(archive, f"{array}.npy")
        array = f"{name}_labels"
        labels = _labels(archive, f"{array}.npy", images.shape[0])
    except ValueError as error:
        problems.append(Problem(array, str(error)))
        return []
    return [Part(name, images, labels)]


def _images(archive: zipfile.ZipFile, member: str) -> Images:
    """The array, unpacked. Raises ValueError."""
    info = archive.getinfo(member)
    with archive.open(info) as stream:
        shape, fortran, dtype = _header(stream)
        if dtype != np.uint8 or len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] != 3):
            raise ValueError(f"must be (N, H, W) or (N, H, W, 3) uint8, not {shape} {dtype}")
        if fortran:
            raise ValueError("is in Fortran order; save np.ascontiguousarray of it")
        if not (shape[0] >= 1 and all(1 <= side <= MOST_SIDE for side in shape[1:3])):
            raise ValueError(f"must have images of 1 to {MOST_SIDE} pixels a side, not {shape}")
        if info.file_size - stream.tell() != math.prod(shape):
            raise ValueError("has not the bytes that its shape needs")
        if info.file_size > MOST_RATIO * max(1, info.compress_size):
            raise ValueError(f"unpacks to more than {MOST_RATIO} times its size; it is empty, or made to fill a disk")
        with tempfile.TemporaryFile() as file:
            shutil.copyfileobj(stream, file, 1 << 20)
            file.flush()
            return Images(file, shape)


def _labels(archive: zipfile.ZipFile, member: str, count: int) -> npt.NDArray[np.int64]:
    """(N,); -1 for all where there are none. Raises ValueError."""
    if member not in archive.namelist():
        return np.full(count, -1, np.int64)
    with archive.open(member) as stream:
        shape, _, dtype = _header(stream)
        if dtype.kind not in "iu" or shape not in ((count,), (count, 1)):
            raise ValueError(f"must be ({count},) or ({count}, 1) integers, one label an image, not {shape} {dtype}")
        content = stream.read(count * dtype.itemsize)
    if len(content) != count * dtype.itemsize:
        raise ValueError("has not the bytes that its shape needs")
    labels = np.frombuffer(content, dtype).astype(np.int64)
    if labels.min() < 0:
        raise ValueError("must not be negative")
    return labels


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether in Fortran order, and type of an array; nothing is unpickled. Raises ValueError."""
    version = np.lib.format.read_magic(stream)
    if version not in HEADERS:
        raise ValueError(f"is of version {version} of the array format; save it anew")
    shape, fortran, dtype = HEADERS[version](stream)
    return shape, fortran, dtype
