"""Where files are kept: one protocol, three stores (folder, S3, memory).

A file is visible whole or not at all. Keys are relative paths such as `jobs/<id>/<sha256>`. A large file may come in
parts, numbered from 1, in any order and each as often as it takes; they become a file when all are there.
"""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from services.artifacts.copying import PIECE_BYTES, failing, sha256_of
from services.artifacts.folder import FolderStore
from services.artifacts.memory import MemoryStore
from services.artifacts.s3 import S3Store, s3_client
from services.artifacts.store import ArtifactStore, Listed

__all__ = [
    "PIECE_BYTES",
    "ArtifactStore",
    "FolderStore",
    "Listed",
    "MemoryStore",
    "S3Store",
    "failing",
    "open_store",
    "s3_client",
    "sha256_of",
]


def open_store(url: str, *, s3_endpoint_url: str | None = None, s3_public_url: str | None = None) -> ArtifactStore:
    """The store of `file:///…`, `s3://bucket/prefix` or `memory://`. Raises ValueError, StorageError.

    s3_public_url: where the addresses lead that are given to others; None: to the endpoint itself."""
    parts = urlsplit(url)
    if parts.scheme == "file" and not parts.netloc and parts.path:
        return FolderStore(Path(unquote(parts.path)))
    if parts.scheme == "s3" and parts.netloc:
        return S3Store(parts.netloc, parts.path.strip("/"), s3_endpoint_url, s3_public_url)
    if parts.scheme == "memory":
        return MemoryStore()
    raise ValueError(f"artifacts URL {url!r} must be file:///folder, s3://bucket/prefix or memory://")
