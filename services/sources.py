"""Data sets that lie in S3: which may be read, and fetching them. No other address is ever taken for a source."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bgpanet.errors import InvalidInput, Problem
from services.artifacts import PIECE_BYTES, failing, s3_client
from services.settings import Settings

ADDRESS = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/([^\0\r\n]*)")
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
SAID_EVERY = 50  # files


def problems(settings: Settings, address: str) -> list[Problem]:
    """Why `s3://bucket/prefix` can't be a source; only buckets that the settings name can."""
    match = ADDRESS.fullmatch(address)
    if match is None:
        return [Problem("source.s3", "must be s3://bucket/prefix")]
    if match[1] not in settings.source_buckets:
        return [Problem("source.s3", f"bucket {match[1]!r} is none of BGPANET_SOURCE_BUCKETS")]
    return []


def fetch(settings: Settings, address: str, folder: Path, say: Callable[[str], None]) -> Path:
    """Fetches all objects under a prefix into `folder`, streamed; an archive alone stays one file. Returns its path.

    `say` hears how far it is, and may raise to end it.

    Raises:
        InvalidInput: it may not be read, holds nothing or too much, or has a name that is no plain path.
        StorageError: the server failed.
    """
    match = ADDRESS.fullmatch(address)
    if match is None or problems(settings, address):
        raise InvalidInput(problems(settings, address))
    bucket, prefix = match[1], match[2]
    is_archive = prefix.endswith(ARCHIVES)
    if prefix and not is_archive:
        prefix = f"{prefix.rstrip('/')}/"
    client = s3_client(settings.s3_endpoint_url)
    folder.mkdir(parents=True)
    root = folder.resolve()
    count = total = 0
    try:
        with failing(f"fetching {address}"):
            for key, size in _objects(client, bucket, prefix):
                name = key.rpartition("/")[2] if is_archive else key.removeprefix(prefix)
                total += size
                if total > settings.upload_bytes:
                    raise InvalidInput.one("source.s3", f"{address} holds more than {settings.upload_bytes} bytes")
                path = _place(root, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                _receive(client.get_object(Bucket=bucket, Key=key)["Body"], path, say, count)
                count += 1
                if is_archive and key == prefix:
                    return path
    finally:
        client.close()
    if not count:
        raise InvalidInput.one("source.s3", f"{address} holds nothing")
    return folder


def _objects(client: Any, bucket: str, prefix: str) -> Iterator[tuple[str, int]]:
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for item in page.get("Contents", ()):
            if not item["Key"].endswith("/"):
                yield item["Key"], item["Size"]


def _place(root: Path, name: str) -> Path:
    """Where an object goes. Raises InvalidInput where its name leads elsewhere, or where another one is already."""
    parts = name.split("/")
    if any(part in ("", ".", "..") or "\\" in part or "\0" in part for part in parts):
        raise InvalidInput.one(name, "the object has no name that a file could have")
    path = root.joinpath(*parts)
    if path.exists():
        raise InvalidInput.one(name, "two objects want to be this file")
    return path


def _receive(body: Any, path: Path, say: Callable[[str], None], count: int) -> None:
    with path.open("xb") as file:
        while piece := body.read(PIECE_BYTES):
            file.write(piece)
            if file.tell() > PIECE_BYTES or count % SAID_EVERY == 0:
                say(f"fetching, {count + 1} files")
