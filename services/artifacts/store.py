"""What every store does, in the same words for all."""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

KEY = re.compile(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*")
PAGE = 1000  # files that are listed at once


@dataclass(frozen=True)
class Listed:
    """A file of a store. Its age is told by the store's own clock, where it has one."""

    key: str
    size: int
    age_seconds: float


class ArtifactStore(Protocol):
    """What every store does. A key that is no plain relative path raises ValueError."""

    def put_file(self, key: str, path: Path, sha256: str, media_type: str = "application/octet-stream") -> None:
        """Stores a file, checked against its digest. Storing a key again replaces it.

        Raises:
            StorageError: nothing is visible under the key then that was not before.
        """

    def get_file(self, key: str, path: Path, sha256: str | None = None) -> None:
        """Fetches to `path`, which appears whole and checked. Raises StorageError, ArtifactMissing."""

    def open(self, key: str) -> BinaryIO:
        """A stream to read from. Raises StorageError, ArtifactMissing."""

    def exists(self, key: str) -> bool:
        """Whether the key is there. Raises StorageError."""

    def delete(self, key: str) -> None:
        """Removes the key, if it is there. Raises StorageError."""

    def keys(self, prefix: str) -> Iterator[str]:
        """All keys that begin with `prefix`, in order. Raises StorageError."""

    def pages(self, prefix: str) -> Iterator[list["Listed"]]:
        """The same with sizes and ages, at most `PAGE` at a time; never all in memory. Raises StorageError."""

    def drop_leftovers(self, older_seconds: float, parts_ids: Collection[str]) -> Iterator[int]:
        """Deletes what writes left that died so long ago: temporary files, and parts but those of `parts_ids`.

        Yields the bytes of each. Raises StorageError.
        """

    def address(self, key: str, filename: str, expires_seconds: int = 300) -> str | None:
        """An address that anyone may fetch from for a while, saved as `filename`; None where there is none."""

    def local_path(self, key: str) -> Path | None:
        """The file itself, where the store is a folder of this machine; else None."""

    def begin_parts(self, key: str) -> str:
        """The store's own name for a file that is to come in parts. Raises StorageError."""

    def put_part(self, key: str, parts_id: str, number: int, source: BinaryIO, size: int, sha256: str) -> None:
        """Stores a part out of a stream of `size` bytes, and never holds it in memory. Again: replaces it.

        Raises:
            Damaged: it ended early, or its digest is another; the part that was there before still is.
            StorageError, ArtifactMissing.
        """

    def part_address(self, key: str, parts_id: str, number: int, expires_seconds: int = 3600) -> str | None:
        """An address to which anyone may PUT a part for a while; None where there is none."""

    def parts(self, key: str, parts_id: str) -> dict[int, int]:
        """Sizes of the parts that are there, by number. Raises StorageError, ArtifactMissing."""

    def finish_parts(self, key: str, parts_id: str, sha256: str) -> None:
        """Makes the parts a file, in the order of their numbers; repeating it is safe.

        Raises:
            Damaged: the whole's digest is another; nothing is visible then, and the parts may be gone.
            StorageError, ArtifactMissing.
        """

    def drop_parts(self, key: str, parts_id: str) -> None:
        """Forgets parts that became no file, if there are any. Raises StorageError."""


def checked_key(key: str) -> str:
    """The key, if it is a plain relative path. Raises ValueError."""
    if not KEY.fullmatch(key) or any(part in (".", "..") for part in key.split("/")):
        raise ValueError(f"artifact key {key!r} must be names of letters, digits, dots, dashes and underscores")
    return key
