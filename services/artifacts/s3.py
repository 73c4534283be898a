"""A store that is a bucket of an S3-compatible service."""

import contextlib
import hashlib
import tempfile
from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, BinaryIO

from services.artifacts.copying import (
    PART_BYTES,
    PIECE_BYTES,
    check_file,
    check_whole,
    copy_part,
    failing,
    receive,
)
from services.artifacts.store import PAGE, Listed, checked_key
from services.errors import ArtifactMissing, Damaged, StorageError


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
            check_file(path, sha256, key)
            self._client.upload_file(str(path), self.bucket, self._name(key), ExtraArgs=extra, Config=self._transfer)
            stored = self._client.head_object(Bucket=self.bucket, Key=self._name(key))["ContentLength"]
        if stored != path.stat().st_size:
            raise StorageError(f"{key} arrived in s3://{self.bucket} with {stored} bytes of {path.stat().st_size}")

    def get_file(self, key: str, path: Path, sha256: str | None = None) -> None:
        with self.open(key) as source:
            receive(source, path, sha256, key)

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
            copy_part(source, file, size, sha256)
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
            check_whole(digest.hexdigest(), sha256, key)
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
