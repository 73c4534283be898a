"""What readers share: looking at image files, and telling many problems of one kind as one."""

import hashlib
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from bgpanet.data.index import Finding
from bgpanet.errors import Problem

IMAGE_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")
TOLD = 5  # places of one kind of problem that are named; the rest is counted
SYNTHETIC_MARKER = "SYNTHETIC.txt"


@dataclass(frozen=True)
class ImageFile:
    """Size in bytes and digest of a file, and whether it begins like a JPEG or PNG."""

    size: int
    sha256: str
    looks_like_image: bool


def inspect(path: Path) -> ImageFile:
    """Reads a file once. Raises OSError."""
    content = path.read_bytes()
    return ImageFile(len(content), hashlib.sha256(content).hexdigest(), content.startswith(MAGIC))


class Complaints:
    """Collects problems by kind; each kind becomes one sentence with the first places and their number."""

    def __init__(self) -> None:
        self._places: defaultdict[str, list[str]] = defaultdict(list)

    def add(self, what: str, where: str) -> None:
        self._places[what].append(where)

    def problems(self) -> list[Problem]:
        """One for each kind."""
        return [Problem(_places(places), what) for what, places in self._places.items()]

    def findings(self) -> list[Finding]:
        """The same, as warnings."""
        return [Finding("warned", problem.where, problem.what) for problem in self.problems()]


def _places(places: list[str]) -> str:
    more = len(places) - TOLD
    return ", ".join(places[:TOLD]) + (f" and {more} more" if more > 0 else "")
