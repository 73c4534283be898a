"""What readers share: looking at image files, and telling many problems of one kind as one."""

import hashlib
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from bgpanet.data.cleaning import JPEG, PNG, clean
from bgpanet.data.index import Finding
from bgpanet.errors import Problem

IMAGE_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
TOLD = 5  # places of one kind of problem that are named; the rest is counted
SYNTHETIC_MARKER = "SYNTHETIC.txt"


@dataclass(frozen=True)
class ImageFile:
    """Size in bytes of a file, the digest of its clean image (see `bgpanet.data.cleaning`), and whether it begins like
    one at least; `bgpanet.data.checks` looks at its pixels."""

    size: int
    sha256: str
    looks_like_image: bool


def inspect(path: Path) -> ImageFile:
    """Reads a file once. Raises OSError."""
    source = path.read_bytes()
    cleaned = clean(source)
    looks_like_image = cleaned.format is not None or source.startswith((JPEG, PNG))
    return ImageFile(len(source), hashlib.sha256(cleaned.content).hexdigest(), looks_like_image)


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
