"""What readers share: looking at image files, and telling many problems of one kind as one."""

import hashlib
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from bgpanet.data.cleaning import clean
from bgpanet.data.index import Finding, Level
from bgpanet.errors import Problem

IMAGE_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
TOLD = 5  # places of one kind of problem that are named; the rest is counted
SYNTHETIC_MARKER = "SYNTHETIC.txt"


@dataclass(frozen=True)
class ImageFile:
    """Size in bytes of an image, the digest of its clean copy (see `bgpanet.data.cleaning`), and whether it is one."""

    size: int
    sha256: str
    looks_like_image: bool


def inspect(content: bytes) -> ImageFile:
    """What an index keeps of an encoded image."""
    cleaned = clean(content)
    return ImageFile(len(content), hashlib.sha256(cleaned.content).hexdigest(), cleaned.format is not None)


def first_file(places: list[Path]) -> Path | None:
    """The first of the places where there is a file."""
    return next((place for place in places if place.is_file()), None)


def locate(folder: Path, name: str, where: str, refused: "Complaints") -> Path | None:
    """The file that a table names, relative to the folder; None, and a complaint, where it is none inside it."""
    relative = PurePosixPath(name)
    if not name.isprintable() or relative.is_absolute() or ".." in relative.parts or any(c in name for c in "\\:"):
        refused.add("a path must be relative, with / between folders and without ..", where)
        return None
    file = folder / relative
    if leads_out(file, folder):
        refused.add("a link leads out of the folder", where)
    elif not file.is_file():
        refused.add("there is no such file", f"{where} ({name})")
    else:
        return file
    return None


def leads_out(file: Path, folder: Path) -> bool:
    """Whether a link on the way to the file leads out of the folder."""
    return not file.resolve().is_relative_to(folder.resolve())


class Complaints:
    """Collects problems by kind; each kind becomes one sentence with the first places and their number."""

    def __init__(self) -> None:
        self._places: defaultdict[str, list[str]] = defaultdict(list)

    def add(self, what: str, where: str) -> None:
        self._places[what].append(where)

    def problems(self) -> list[Problem]:
        """One for each kind."""
        return [Problem(_places(places), what) for what, places in self._places.items()]

    def findings(self, level: Level = "warned") -> list[Finding]:
        """The same, as findings."""
        return [Finding(level, problem.where, problem.what) for problem in self.problems()]


def _places(places: list[str]) -> str:
    more = len(places) - TOLD
    return ", ".join(places[:TOLD]) + (f" and {more} more" if more > 0 else "")
