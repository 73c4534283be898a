"""Files copied whole and checked by digest, and errors of files, network and S3 as one."""

import hashlib
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO

from services.errors import ArtifactMissing, Damaged, StorageError

PART_BYTES = 16 * 1024 * 1024
PIECE_BYTES = 1024 * 1024  # of what passes memory at once


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, hex. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_file(path: Path, sha256: str, key: str) -> None:
    """Holds a file against its digest. Raises StorageError, OSError."""
    found = sha256_of(path)
    if found != sha256:
        raise StorageError(f"{key} has the digest {found[:12]}… instead of {sha256[:12]}…; it is not used")


def copy_part(source: BinaryIO, target: IO[bytes], size: int, sha256: str) -> None:
    """Copies exactly `size` bytes, piece by piece. Raises Damaged."""
    digest, left = hashlib.sha256(), size
    while left and (piece := source.read(min(PIECE_BYTES, left))):
        digest.update(piece)
        target.write(piece)
        left -= len(piece)
    if left or source.read(1):
        arrived = f"{size - left}" if left else "more"
        raise Damaged(f"{arrived} of {size} bytes arrived; send the part again")
    if digest.hexdigest() != sha256:
        raise Damaged("the part's digest is not the one that was announced; send it again")


def check_whole(found: str, sha256: str, key: str) -> None:
    """Holds what was made of parts against its digest. Raises Damaged."""
    if found != sha256:
        raise Damaged(f"all parts together have the digest {found[:12]}… instead of {sha256[:12]}…")


def receive(source: BinaryIO, path: Path, sha256: str | None, key: str) -> None:
    """Copies a stream into a file that appears whole. Raises StorageError."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    with failing(f"fetching {key} to {path.parent}"):
        try:
            with partial.open("xb") as file:
                shutil.copyfileobj(source, file, PART_BYTES)
            if sha256 is not None:
                check_file(partial, sha256, key)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


@contextmanager
def failing(what: str) -> Iterator[None]:
    """Errors of files, network and S3 become StorageError, with what was being done; no secrets are in their texts."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError
    from urllib3.exceptions import HTTPError

    try:
        yield
    except FileNotFoundError as error:
        raise ArtifactMissing(f"{what}: it is not there") from error
    except ClientError as error:
        if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 404:
            raise ArtifactMissing(f"{what}: it is not there") from error
        raise StorageError(f"{what} failed: {error.response.get('Error', {}).get('Code')}") from error
    except (OSError, BotoCoreError, Boto3Error, HTTPError) as error:
        raise StorageError(f"{what} failed: {error}") from error
