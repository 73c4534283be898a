"""A store in memory."""

import hashlib
import io
import secrets
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import BinaryIO

from services.artifacts.copying import check_file, check_whole, copy_part, failing, receive
from services.artifacts.store import PAGE, Listed, checked_key
from services.errors import ArtifactMissing


class MemoryStore:
    """Files in memory, for tests."""

    def __init__(self) -> None:
        self._files: dict[str, bytes] = {}
        self._parts: dict[str, dict[int, bytes]] = {}
        self._since: dict[str, float] = {}  # key, or name of parts -> time.monotonic()

    def put_file(self, key: str, path: Path, sha256: str, media_type: str = "application/octet-stream") -> None:
        checked_key(key)
        with failing(f"storing {key}"):
            check_file(path, sha256, key)
            self._files[key] = path.read_bytes()
            self._since[key] = time.monotonic()

    def get_file(self, key: str, path: Path, sha256: str | None = None) -> None:
        receive(self.open(key), path, sha256, key)

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
        copy_part(source, content, size, sha256)
        self._of(key, parts_id)[number] = content.getvalue()

    def part_address(self, key: str, parts_id: str, number: int, expires_seconds: int = 3600) -> str | None:
        return None

    def parts(self, key: str, parts_id: str) -> dict[int, int]:
        return {number: len(content) for number, content in self._of(key, parts_id).items()}

    def finish_parts(self, key: str, parts_id: str, sha256: str) -> None:
        if key in self._files and parts_id not in self._parts:
            return
        whole = b"".join(content for _, content in sorted(self._of(key, parts_id).items()))
        check_whole(hashlib.sha256(whole).hexdigest(), sha256, key)
        self._files[key] = whole
        self._since[key] = time.monotonic()
        self.drop_parts(key, parts_id)

    def drop_parts(self, key: str, parts_id: str) -> None:
        self._parts.pop(parts_id, None)

    def _of(self, key: str, parts_id: str) -> dict[int, bytes]:
        if parts_id not in self._parts:
            raise ArtifactMissing(f"the store has no parts of {key}")
        return self._parts[parts_id]
