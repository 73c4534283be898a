"""A store that is a folder."""

import hashlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Collection, Iterator
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import BinaryIO

from services.artifacts.copying import PART_BYTES, PIECE_BYTES, check_file, check_whole, copy_part, failing, receive
from services.artifacts.store import PAGE, Listed, checked_key

TEMPORARY = re.compile(r"\..+\.[0-9a-f]{16}")


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
                check_file(partial, sha256, key)
                partial.replace(target)
            finally:
                partial.unlink(missing_ok=True)

    def get_file(self, key: str, path: Path, sha256: str | None = None) -> None:
        with self.open(key) as source:
            receive(source, path, sha256, key)

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
                    copy_part(source, file, size, sha256)
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
                check_whole(digest.hexdigest(), sha256, key)
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
