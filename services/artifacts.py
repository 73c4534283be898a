"""Where files are kept: one protocol, three stores (folder, S3, memory).

A file is visible whole or not at all. Keys are relative paths such as `jobs/<id>/<sha256>`. A large file may come in
parts, numbered from 1, in any order and each as often as it takes; they become a file when all are there.
"""

import contextlib
import hashlib
import io
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import IO, Any, BinaryIO, Protocol
from urllib.parse import unquote, urlsplit

from services.errors import ArtifactMissing, Damaged, StorageError

KEY = re.compile(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*")
PART_BYTES = 16 * 1024 * 1024
PIECE_BYTES = 1024 * 1024  # of what passes memory at once
PAGE = 1000  # files that are listed at once
TEMPORARY = re.compile(r"\..+\.[0-9a-f]{16}")


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


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, hex. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class FolderStore:
    """Files in a folder, written under a temporary name and renamed."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put_file(self, key: str, path: Path, sha256: str, media_type: str = "application/octet-stream") -> None:
        target = self._path(key)
        partial = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
        with failing(f"storing {key} in {self.root}"):
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                with partial.open("xb") as file, path.open("rb") as source:
                    shutil.copyfileobj(source, file, PART_BYTES)
                    file.flush()
                    os.fsync(file.fileno())
                _check(partial, sha256, key)
                partial.replace(target)
            finally:
                partial.unlink(missing_ok=True)

    def get_file(self, key: str, path: Path, sha256: str | None = None) -> None:
        with self.open(key) as source:
            _receive(source, path, sha256, key)

    def open(self, key: str) -> BinaryIO:
        with failing(f"reading {key} in {self.root}"):
            return self._path(key).open("rb")

    def exists(self, key: str) -> bool:
        return self._path(key).is_file()

    def delete(self, key: str) -> None:
        with failing(f"deleting {key} in {self.root}"):
            self._path(key).unlink(missing_ok=True)

    def keys(self, prefix: str) -> Iterator[str]:
        return (file.key for page in self.pages(prefix) for file in page)

    def pages(self, prefix: str) -> Iterator[list[Listed]]:
        with failing(f"listing {self.root}"):
            now = time.time()
            found = (file for file in self._walk(prefix) if not file.name.startswith("."))
            while page := list(islice(found, PAGE)):
                yield [self._listed(file, now) for file in page]

    def drop_leftovers(self, older_seconds: float, parts_ids: Collection[str]) -> Iterator[int]:
        with failing(f"tidying {self.root}"):
            before = time.time() - older_seconds
            for file in self._walk(""):
                if TEMPORARY.fullmatch(file.name):
                    stat = file.stat()
                    if stat.st_mtime < before:
                        Path(file.path).unlink(missing_ok=True)
                        yield stat.st_size
            folders = self.root / "parts"
            for folder in sorted(folders.iterdir()) if folders.is_dir() else ():
                if folder.name not in parts_ids and folder.stat().st_mtime < before:
                    size = sum(part.stat().st_size for part in folder.iterdir())
                    shutil.rmtree(folder)
                    yield size

    def _walk(self, prefix: str, folder: str = "") -> Iterator[os.DirEntry[str]]:
        """Files whose path begins with `prefix`, in the order of their paths, one folder at a time."""
        try:
            with os.scandir(self.root / folder) as entries:
                inside = {f"{folder}{entry.name}{'/' if entry.is_dir() else ''}": entry for entry in entries}
        except FileNotFoundError:  # removed meanwhile, or nothing was ever stored
            return
        for path, entry in sorted(inside.items(), key=itemgetter(0)):
            if path.endswith("/") and (path.startswith(prefix) or prefix.startswith(path)):
                yield from self._walk(prefix, path)
            elif path.startswith(prefix) and not path.endswith("/"):
                yield entry

    def _listed(self, file: "os.DirEntry[str]", now: float) -> Listed:
        key = Path(file.path).relative_to(self.root).as_posix()
        try:
            stat = file.stat()
        except FileNotFoundError:
            return Listed(key, 0, 0.0)
        return Listed(key, stat.st_size, now - stat.st_mtime)

    def address(self, key: str, filename: str, expires_seconds: int = 300) -> str | None:
        return None

    def local_path(self, key: str) -> Path | None:
        return self._path(key)

    def begin_parts(self, key: str) -> str:
        parts_id = secrets.token_hex(16)
        with failing(f"making room for parts of {checked_key(key)} in {self.root}"):
            self._parts(parts_id).mkdir(parents=True)
        return parts_id

    def put_part(self, key: str, parts_id: str, number: int, source: BinaryIO, size: int, sha256: str) -> None:
        folder = self._parts(parts_id)
        partial = folder / f".{number}.{secrets.token_hex(8)}"
        with failing(f"storing part {number} of {key} in {self.root}"):
            try:
                with partial.open("xb") as file:
                    _copy_part(source, file, size, sha256)
                    file.flush()
                    os.fsync(file.fileno())
                partial.replace(folder / f".{number}")
            finally:
                partial.unlink(missing_ok=True)

    def part_address(self, key: str, parts_id: str, number: int, expires_seconds: int = 3600) -> str | None:
        return None

    def parts(self, key: str, parts_id: str) -> dict[int, int]:
        with failing(f"looking for parts of {key} in {self.root}"):
            found = [path for path in self._parts(parts_id).iterdir() if path.name[1:].isdigit()]
            return {int(path.name[1:]): path.stat().st_size for path in found}

    def finish_parts(self, key: str, parts_id: str, sha256: str) -> None:
        target, folder = self._path(key), self._parts(parts_id)
        if target.is_file() and not folder.exists():
            return
        partial = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
        digest = hashlib.sha256()
        with failing(f"putting {key} together in {self.root}"):
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                with partial.open("xb") as file:
                    for number in sorted(self.parts(key, parts_id)):
                        with (folder / f".{number}").open("rb") as part:
                            while piece := part.read(PIECE_BYTES):
                                digest.update(piece)
                                file.write(piece)
                    file.flush()
                    os.fsync(file.fileno())
                _check_whole(digest.hexdigest(), sha256, key)
                partial.replace(target)
            finally:
                partial.unlink(missing_ok=True)
        self.drop_parts(key, parts_id)

    def drop_parts(self, key: str, parts_id: str) -> None:
        shutil.rmtree(self._parts(parts_id), ignore_errors=True)

    def _parts(self, parts_id: str) -> Path:
        return self._path(f"parts/{parts_id}")

    def _path(self, key: str) -> Path:
        return self.root / checked_key(key)


class MemoryStore:
    """Files in memory, for tests."""

    def __init__(self) -> None:
        self._files: dict[str, bytes] = {}
        self._parts: dict[str, dict[int, bytes]] = {}
        self._since: dict[str, float] = {}  # key, or name of parts -> time.monotonic()

    def put_file(self, key: str, path: Path, sha256: str, media_type: str = "application/octet-stream") -> None:
        checked_key(key)
        with failing(f"storing {key}"):
            _check(path, sha256, key)
            self._files[key] = path.read_bytes()
            self._since[key] = time.monotonic()

    def get_file(self, key: str, path: Path, sha256: str | None = None) -> None:
        _receive(self.open(key), path, sha256, key)

    def open(self, key: str) -> BinaryIO:
        if checked_key(key) not in self._files:
            raise ArtifactMissing(f"the store has no {key}")
        return io.BytesIO(self._files[key])

    def exists(self, key: str) -> bool:
        return checked_key(key) in self._files

    def delete(self, key: str) -> None:
        self._files.pop(checked_key(key), None)

    def keys(self, prefix: str) -> Iterator[str]:
        return (file.key for page in self.pages(prefix) for file in page)

    def pages(self, prefix: str) -> Iterator[list[Listed]]:
        now = time.monotonic()
        keys = sorted(key for key in self._files if key.startswith(prefix))
        for first in range(0, len(keys), PAGE):
            yield [Listed(key, len(self._files[key]), now - self._since[key]) for key in keys[first : first + PAGE]]

    def drop_leftovers(self, older_seconds: float, parts_ids: Collection[str]) -> Iterator[int]:
        before = time.monotonic() - older_seconds
        for parts_id in [name for name in self._parts if name not in parts_ids and self._since[name] < before]:
            yield sum(map(len, self._parts.pop(parts_id).values()))

    def address(self, key: str, filename: str, expires_seconds: int = 300) -> str | None:
        return None

    def local_path(self, key: str) -> Path | None:
        return None

    def begin_parts(self, key: str) -> str:
        checked_key(key)
        parts_id = secrets.token_hex(16)
        self._parts[parts_id] = {}
        self._since[parts_id] = time.monotonic()
        return parts_id

    def put_part(self, key: str, parts_id: str, number: int, source: BinaryIO, size: int, sha256: str) -> None:
        content = io.BytesIO()
        _copy_part(source, content, size, sha256)
        self._of(key, parts_id)[number] = content.getvalue()

    def part_address(self, key: str, parts_id: str, number: int, expires_seconds: int = 3600) -> str | None:
        return None

    def parts(self, key: str, parts_id: str) -> dict[int, int]:
        return {number: len(content) for number, content in self._of(key, parts_id).items()}

    def finish_parts(self, key: str, parts_id: str, sha256: str) -> None:
        if key in self._files and parts_id not in self._parts:
            return
        whole = b"".join(content for _, content in sorted(self._of(key, parts_id).items()))
        _check_whole(hashlib.sha256(whole).hexdigest(), sha256, key)
        self._files[key] = whole
        self._since[key] = time.monotonic()
        self.drop_parts(key, parts_id)

    def drop_parts(self, key: str, parts_id: str) -> None:
        self._parts.pop(parts_id, None)

    def _of(self, key: str, parts_id: str) -> dict[int, bytes]:
        if parts_id not in self._parts:
            raise ArtifactMissing(f"the store has no parts of {key}")
        return self._parts[parts_id]


class S3Store:
    """Objects of a bucket, under a prefix; large ones in parts, which S3 shows only when all are there."""

    def __init__(self, bucket: str, prefix: str, endpoint_url: str | None, public_url: str | None = None) -> None:
        from boto3.s3.transfer import TransferConfig

        self.bucket = bucket
        self._prefix = f"{checked_key(prefix)}/" if prefix else ""
        self._transfer = TransferConfig(
            multipart_threshold=PART_BYTES, multipart_chunksize=PART_BYTES, max_concurrency=4
        )
        self._client = s3_client(endpoint_url)
        # An address is signed for the host that it names, so that it can't be rewritten afterwards.
        self._signing = s3_client(public_url) if public_url else self._client

    def make_bucket(self) -> bool:
        """Makes the bucket where there is none. Returns whether it did. Raises StorageError."""
        with failing(f"making the bucket {self.bucket}"):
            found = {bucket["Name"] for bucket in self._client.list_buckets()["Buckets"]}
            if self.bucket not in found:
                try:
                    self._client.create_bucket(Bucket=self.bucket)
                except self._client.exceptions.BucketAlreadyOwnedByYou:
                    return False
            return self.bucket not in found

    def put_file(self, key: str, path: Path, sha256: str, media_type: str = "application/octet-stream") -> None:
        extra = {"ContentType": media_type, "Metadata": {"sha256": sha256}}
        with failing(f"storing {key} in s3://{self.bucket}"):
            _check(path, sha256, key)
            self._client.upload_file(str(path), self.bucket, self._name(key), ExtraArgs=extra, Config=self._transfer)
            stored = self._client.head_object(Bucket=self.bucket, Key=self._name(key))["ContentLength"]
        if stored != path.stat().st_size:
            raise StorageError(f"{key} arrived in s3://{self.bucket} with {stored} bytes of {path.stat().st_size}")

    def get_file(self, key: str, path: Path, sha256: str | None = None) -> None:
        with self.open(key) as source:
            _receive(source, path, sha256, key)

    def open(self, key: str) -> BinaryIO:
        with failing(f"reading {key} in s3://{self.bucket}"):
            body: BinaryIO = self._client.get_object(Bucket=self.bucket, Key=self._name(key))["Body"]
            return body

    def exists(self, key: str) -> bool:
        with failing(f"looking for {key} in s3://{self.bucket}"):
            try:
                self._client.head_object(Bucket=self.bucket, Key=self._name(key))
            except self._client.exceptions.ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                    return False
                raise
        return True

    def delete(self, key: str) -> None:
        with failing(f"deleting {key} in s3://{self.bucket}"):
            self._client.delete_object(Bucket=self.bucket, Key=self._name(key))

    def keys(self, prefix: str) -> Iterator[str]:
        return (file.key for page in self.pages(prefix) for file in page)

    def pages(self, prefix: str) -> Iterator[list[Listed]]:
        with failing(f"listing s3://{self.bucket}"):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=self._prefix + prefix, PaginationConfig={"PageSize": PAGE}
            )
            for page in pages:
                now = _server_time(page)
                yield [
                    Listed(
                        item["Key"].removeprefix(self._prefix),
                        int(item["Size"]),
                        (now - item["LastModified"]).total_seconds(),
                    )
                    for item in page.get("Contents", ())
                ]

    def drop_leftovers(self, older_seconds: float, parts_ids: Collection[str]) -> Iterator[int]:
        with failing(f"looking for unfinished uploads in s3://{self.bucket}"):
            pages = self._client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self.bucket, Prefix=self._prefix
            )
            for page in pages:
                now = _server_time(page)
                for begun in page.get("Uploads", ()):
                    age = (now - begun["Initiated"]).total_seconds()
                    if begun["UploadId"] not in parts_ids and age > older_seconds:
                        yield self._abort(begun["Key"].removeprefix(self._prefix), begun["UploadId"])

    def _abort(self, key: str, parts_id: str) -> int:
        try:
            size = sum(self.parts(key, parts_id).values())
        except ArtifactMissing:  # somebody else has dropped it
            return 0
        self.drop_parts(key, parts_id)
        return size

    def address(self, key: str, filename: str, expires_seconds: int = 300) -> str | None:
        checked_key(filename)
        parameters = {
            "Bucket": self.bucket,
            "Key": self._name(key),
            "ResponseContentDisposition": f'attachment; filename="{filename}"',
        }
        with failing(f"signing an address of {key}"):
            address: str = self._signing.generate_presigned_url(
                "get_object", Params=parameters, ExpiresIn=expires_seconds
            )
        return address

    def local_path(self, key: str) -> Path | None:
        return None

    def begin_parts(self, key: str) -> str:
        with failing(f"beginning parts of {key} in s3://{self.bucket}"):
            begun = self._client.create_multipart_upload(Bucket=self.bucket, Key=self._name(key))
            return str(begun["UploadId"])

    def put_part(self, key: str, parts_id: str, number: int, source: BinaryIO, size: int, sha256: str) -> None:
        # Signing needs a stream that can seek.
        with failing(f"storing part {number} of {key} in s3://{self.bucket}"), tempfile.TemporaryFile() as file:
            _copy_part(source, file, size, sha256)
            file.seek(0)
            named = {"Bucket": self.bucket, "Key": self._name(key), "UploadId": parts_id, "PartNumber": number}
            self._client.upload_part(**named, Body=file, ContentLength=size)

    def part_address(self, key: str, parts_id: str, number: int, expires_seconds: int = 3600) -> str | None:
        named = {"Bucket": self.bucket, "Key": self._name(key), "UploadId": parts_id, "PartNumber": number}
        with failing(f"signing an address for part {number} of {key}"):
            address: str = self._signing.generate_presigned_url("upload_part", Params=named, ExpiresIn=expires_seconds)
        return address

    def parts(self, key: str, parts_id: str) -> dict[int, int]:
        return {int(part["PartNumber"]): int(part["Size"]) for part in self._listed_parts(key, parts_id)}

    def finish_parts(self, key: str, parts_id: str, sha256: str) -> None:
        if not self.exists(key):
            found = sorted(self._listed_parts(key, parts_id), key=lambda part: int(part["PartNumber"]))
            parts = [{"PartNumber": part["PartNumber"], "ETag": part["ETag"]} for part in found]
            with failing(f"putting {key} together in s3://{self.bucket}"):
                self._client.complete_multipart_upload(
                    Bucket=self.bucket, Key=self._name(key), UploadId=parts_id, MultipartUpload={"Parts": parts}
                )
        digest = hashlib.sha256()
        with failing(f"checking {key} in s3://{self.bucket}"), self.open(key) as file:
            while piece := file.read(PIECE_BYTES):
                digest.update(piece)
        try:
            _check_whole(digest.hexdigest(), sha256, key)
        except Damaged:
            self.delete(key)
            raise

    def drop_parts(self, key: str, parts_id: str) -> None:
        with contextlib.suppress(ArtifactMissing), failing(f"dropping parts of {key} in s3://{self.bucket}"):
            self._client.abort_multipart_upload(Bucket=self.bucket, Key=self._name(key), UploadId=parts_id)

    def _listed_parts(self, key: str, parts_id: str) -> list[dict[str, Any]]:
        with failing(f"looking for parts of {key} in s3://{self.bucket}"):
            pages = self._client.get_paginator("list_parts").paginate(
                Bucket=self.bucket, Key=self._name(key), UploadId=parts_id
            )
            return [part for page in pages for part in page.get("Parts", ())]

    def _name(self, key: str) -> str:
        return self._prefix + checked_key(key)


def _server_time(answer: Any) -> datetime:
    """When the server answered, by its own clock; by ours where it does not say."""
    told = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    return parsedate_to_datetime(told) if told else datetime.now(UTC)


def s3_client(endpoint_url: str | None) -> Any:
    """A client that tries again, and does not wait for ever."""
    import boto3
    from botocore.config import Config

    return boto3.Session().client(  # the default session would keep the first credentials that it saw
        "s3",
        endpoint_url=endpoint_url,
        config=Config(
            retries={"mode": "standard", "max_attempts": 5},
            connect_timeout=5,
            read_timeout=60,
            signature_version="s3v4",
            s3={"addressing_style": "path" if endpoint_url else "auto"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


def checked_key(key: str) -> str:
    """The key, if it is a plain relative path. Raises ValueError."""
    if not KEY.fullmatch(key) or any(part in (".", "..") for part in key.split("/")):
        raise ValueError(f"artifact key {key!r} must be names of letters, digits, dots, dashes and underscores")
    return key


def _check(path: Path, sha256: str, key: str) -> None:
    found = sha256_of(path)
    if found != sha256:
        raise StorageError(f"{key} has the digest {found[:12]}… instead of {sha256[:12]}…; it is not used")


def _copy_part(source: BinaryIO, target: IO[bytes], size: int, sha256: str) -> None:
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


def _check_whole(found: str, sha256: str, key: str) -> None:
    if found != sha256:
        raise Damaged(f"all parts together have the digest {found[:12]}… instead of {sha256[:12]}…")


def _receive(source: BinaryIO, path: Path, sha256: str | None, key: str) -> None:
    """Copies a stream into a file that appears whole."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    with failing(f"fetching {key} to {path.parent}"):
        try:
            with partial.open("xb") as file:
                shutil.copyfileobj(source, file, PART_BYTES)
            if sha256 is not None:
                _check(partial, sha256, key)
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
