"""Archives that somebody sent: unpacked into a folder, or refused whole. Nothing is ever written outside the folder."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO


@dataclass(frozen=True)
class Limits:
    """What an archive may hold. ratio: unpacked bytes over packed ones."""

    entries: int = 200_000
    total_bytes: int = 500_000_000_000
    ratio: float = 100.0


@dataclass(frozen=True)
class Extracted:
    """files and bytes that were written. nested: archives inside it, which stay as they are."""

    files: int
    bytes: int
    nested: tuple[str, ...]


def extract(
    source: Path | BinaryIO,
    folder: Path,
    limits: Limits | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Extracted:
    """Unpacks a zip, or a tar with or without gzip, bzip2 or xz, into `folder`, which must not exist or be empty.

    source: a file, or an open one that can seek. `progress` is called with bytes of the source read and in all, and
    may raise to stop. Memory stays bounded whatever the archive's size. Modes and times of the archive are not kept.

    Raises:
        InvalidInput: with every problem; nothing is left behind then, nor after any other error.
        OSError: the disk is full, say.
    """
    raise NotImplementedError
