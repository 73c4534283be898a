"""Images that show the same thing: byte for byte, or after being scaled, cropped, recompressed, turned or mirrored."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bgpanet.data.index import Index


@dataclass(frozen=True)
class Fingerprints:
    """What of a data set's images suffices to find them again elsewhere, in the order of its index; N images.

    image_ids: of the readable images. sha256: (N,) text, hex, of the stored bytes. thumbnails: (N, S, S, 3) uint8, RGB.
    """

    image_ids: tuple[str, ...]
    sha256: np.ndarray
    thumbnails: np.ndarray

    def write(self, path: Path) -> None:
        """One `.npz` file without pickles, about 1 kB an image."""
        raise NotImplementedError

    @classmethod
    def read(cls, path: Path) -> "Fingerprints":
        """What `write` wrote. Raises InvalidInput."""
        raise NotImplementedError


@dataclass(frozen=True)
class Pair:
    """Two images that show the same. similarity: 1.0 for the same bytes, else as in `find_pairs`, below 1."""

    first: str
    second: str
    similarity: float


def find_pairs(
    one: Fingerprints, other: Fingerprints | None = None, progress: Callable[[int, int], None] | None = None
) -> list[Pair]:
    """Pairs inside one data set, each once, or between two (first is of `one`); the most similar first."""
    raise NotImplementedError


def join(index: Index, pairs: Iterable[Pair]) -> Index:
    """The index with the groups of each pair made one, so that no split tears them apart. Its digest is another."""
    raise NotImplementedError
