"""Files on their way: uploads in parts and downloads by ranges; both go on where they were cut off, checked by digest.

A download lies beside its place, hidden and named by its digest, until it is whole and checked.
"""

import base64
import hashlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from services.client_errors import ArrivedDamaged, Invalid, Missing, TooBusy, Unreachable
from services.connection import FIRST_DELAY, LONGEST_DELAY, TRIES, Connection, path_part

Seen = Callable[[int, int], None]
"""Is told of a transfer: bytes that are there, and in all."""


def upload(connection: Connection, path: Path, on_sent: Seen | None = None) -> dict[str, Any]:
    """Sends a file in parts; those that are there already are not sent again. Returns the complete upload.

    Raises:
        ApiError: it was refused, or arrived damaged.
        OSError: the file can't be read.
    """
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        body = {"name": path.name, "size": path.stat().st_size, "sha256": sha256}
        begun = connection.json("POST", "uploads", json=body, repeatable=True)
        there = set(begun["received"])
        for number in range(1, begun["parts"] + 1):
            if number not in there:
                file.seek((number - 1) * begun["part_size"])
                send_part(connection, begun["id"], number, file.read(begun["part_size"]))
            if on_sent is not None:
                on_sent(min(number * begun["part_size"], begun["size"]), begun["size"])
    return connection.json("POST", f"uploads/{begun['id']}/complete", repeatable=True)


def send_part(connection: Connection, upload_id: str, number: int, content: bytes) -> None:
    """Sends one part, to the service or to the store that it names. Raises ApiError."""
    where = f"uploads/{path_part(upload_id)}/parts/{number}"
    address = connection.json("GET", where)["address"]
    if address is None:
        digest = base64.b64encode(hashlib.sha256(content).digest()).decode()
        connection.json("PUT", where, content=content, headers={"Content-Digest": f"sha-256=:{digest}:"})
    else:
        connection.put_elsewhere(address, content)


def download(connection: Connection, job_id: str, name: str, path: Path, on_received: Seen | None = None) -> Path:
    """Saves an artifact of a job. `path` is a file, or a folder that exists. Returns the file.

    What came before the line broke stays for the next call.

    Raises:
        ApiError: there is no such artifact, or it arrived damaged.
        OSError: it can't be written there.
    """
    where = f"jobs/{path_part(job_id)}/artifacts"
    listed = {item["name"]: item for item in connection.json("GET", where)["items"]}
    if name not in listed:
        raise Missing(404, {"detail": f"job {job_id} has no artifact {name!r}; it has: {', '.join(listed) or 'none'}"})
    target = path / Path(name).name if path.is_dir() else path
    if not target.parent.is_dir():
        raise NotADirectoryError(f"{target.parent} is no folder; make it first")
    return _Download(connection, f"{where}/{path_part(name)}", listed[name], target, on_received).run()


class _Download:
    """One artifact on its way to `target`."""

    def __init__(
        self, connection: Connection, where: str, artifact: Mapping[str, Any], target: Path, seen: Seen | None
    ) -> None:
        self.connection, self.where, self.target, self.seen = connection, where, target, seen
        self.name, self.size, self.sha256 = str(artifact["name"]), int(artifact["size"]), str(artifact["sha256"])
        self.partial = target.with_name(f".{target.name}.{self.sha256[:12]}.part")
        self.resumed = self.partial.exists()  # whether any of it came before, perhaps of something else

    def run(self) -> Path:
        """Fetches it until it is whole, and puts it in its place. Raises ApiError."""
        self._fetch_all()
        if self._is_damaged() and self.resumed:  # so once more from the beginning
            self.partial.unlink()
            self._fetch_all()
        if self._is_damaged():
            self.partial.unlink()
            raise ArrivedDamaged(f"{self.name} arrived damaged; try again")
        return self.partial.replace(self.target)

    def _fetch_all(self) -> None:
        fruitless = 0  # breaks in a row before which not a byte came
        while not self.partial.exists() or self._there() < self.size:
            before = self._there()
            try:
                self._fetch(before)
            except (Unreachable, TooBusy) as error:
                fruitless = 0 if self._there() > before else fruitless + 1
                if fruitless == TRIES:
                    raise
                time.sleep(min(LONGEST_DELAY, error.retry_after or FIRST_DELAY * 2**fruitless))
            else:
                if self._there() == before and self.size > before:
                    return  # nothing more is to be had; the digest tells

    def _fetch(self, there: int) -> None:
        headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={there}-"} if there else {})}
        try:
            with self.connection.stream(self.where, None, headers) as answer:
                goes_on = there > 0 and answer.headers.get("Content-Range", "").startswith(f"bytes {there}-")
                self.resumed |= goes_on
                with self.partial.open("ab" if goes_on else "wb") as file:
                    for part in answer.iter_bytes():
                        file.write(part)
                        if self.seen is not None:
                            self.seen(min(file.tell(), self.size), self.size)
        except Invalid as error:
            if error.status != 416:
                raise
            self.partial.unlink()  # a store that has no such range has another file

    def _there(self) -> int:
        return self.partial.stat().st_size if self.partial.exists() else 0

    def _is_damaged(self) -> bool:
        with self.partial.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() != self.sha256
