"""A trained model from elsewhere, checked before it is used: safetensors and `model.json` only, in a folder or a zip.

Nothing is ever opened that could run code. What is not needed is not read: pickles and scripts are refused by name.
"""

import json
import re
import shutil
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

from bgpanet import plain_json
from bgpanet.bundles import CARD, WEIGHTS, load_bundle
from bgpanet.ensemble import load_cards
from bgpanet.errors import InvalidInput, Problem
from bgpanet.events import Progress, Result
from bgpanet.experiment import Workplace
from bgpanet.specs import ImportSpec

MOST_HEADER = 16 * 1024 * 1024  # bytes; that of the largest model of the zoo has 0.1 MB
MOST_CARD = 1_000_000
MOST_WEIGHTS = 8 * 10**9
MOST_MEMBERS = 20
TAKEN_ALONG = ("about.json", "model_card.md", "SHA256SUMS")  # what an export has besides; told as it is, never used
MOST_ABOUT = 1_000_000  # bytes; it goes with every answer that shows the version
SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
_MEMBER = re.compile(r"(fold-\d{1,2}/)?(model\.safetensors|model\.json)")


def import_model(spec: ImportSpec, place: Workplace) -> dict[str, Any]:
    """Checks a model and hands in its files. Returns the summary, which is also reported as `Result`.

    places: where each file that was handed in belongs in the model's folder.

    Raises:
        InvalidInput: with everything that is wrong with it.
    """
    source = Path(spec.source)
    folder = place.output / "model"
    place.report(Progress(fraction=0.1, message="looking at its files"))
    about = _unpacked(source, folder)
    members = sorted({path.parent for path in folder.rglob("model.*")})
    problems = [problem for member in members for problem in header_problems(member / WEIGHTS, _told(member, folder))]
    if problems:
        raise InvalidInput(problems)
    place.report(Progress(fraction=0.5, message="building the network and looking at every weight"))
    for member in members:
        load_bundle(member)
    cards = load_cards(folder)
    card = cards[0].model_dump(mode="json")
    try:
        plain_json.refuse_unstorable(card)
    except ValueError as error:
        raise InvalidInput.one(CARD, f"can't be kept: {error}") from None
    places = {}
    for member in members:
        for name in (WEIGHTS, CARD):
            inside = (member / name).relative_to(folder).as_posix()
            handed = (member / name).rename(place.output / inside.replace("/", "."))
            places[handed.name] = inside
            place.hand_in(handed)
    summary = {
        "members": len(cards),
        "card": card,
        "metrics": _dictionary(about.get("metrics")),
        "provenance": {"kind": "imported", "file": spec.name, "told": about},
        "places": places,
    }
    place.report(Result(summary=summary))
    return summary


def _dictionary(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _told(member: Path, folder: Path) -> str:
    return (member / WEIGHTS).relative_to(folder).as_posix()


def _unpacked(source: Path, folder: Path) -> dict[str, Any]:
    """Copies the members' files into `folder`. Returns what an export says of itself, plain; {} where it says nothing.

    Raises:
        InvalidInput: it is neither a folder nor a zip; it has other files, lacks some, or they are too large.
    """
    if source.is_dir():
        sizes = {
            path.relative_to(source).as_posix(): path.stat().st_size for path in source.rglob("*") if path.is_file()
        }
        return _taken(sizes, lambda name: (source / name).open("rb"), folder)
    try:
        with zipfile.ZipFile(source) as archive:
            infos = {info.filename: info for info in archive.infolist() if not info.is_dir()}
            if len(infos) < sum(not info.is_dir() for info in archive.infolist()):
                raise InvalidInput.one("", "names a file twice")
            return _taken(
                {name: info.file_size for name, info in infos.items()}, lambda n: archive.open(infos[n]), folder
            )
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError) as error:
        raise InvalidInput.one("", f"is no zip that can be read: {error}") from None


def _taken(sizes: dict[str, int], opened: Any, folder: Path) -> dict[str, Any]:
    wanted = {name for name in sizes if _MEMBER.fullmatch(name)}
    if problems := [*_file_problems(sizes, wanted)]:
        raise InvalidInput(problems)
    for name in sorted(wanted):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with opened(name) as stream, path.open("wb") as file:
            _copied(stream, file, sizes[name], name)
    if "about.json" not in sizes:
        return {}
    with opened("about.json") as stream:
        try:
            return _dictionary(plain_json.loads(stream.read(MOST_ABOUT)))
        except (ValueError, RecursionError):
            raise InvalidInput.one("about.json", "is not JSON; leave it out") from None


def _copied(stream: IO[bytes], file: IO[bytes], size: int, name: str) -> None:
    """No more than was announced: what unpacks to more would fill the disk."""
    shutil.copyfileobj(_Limited(stream, size, name), file)


class _Limited:
    """A stream of at most so many bytes."""

    def __init__(self, stream: IO[bytes], left: int, name: str) -> None:
        self._stream, self._left, self._name = stream, left, name

    def read(self, size: int = -1) -> bytes:
        piece = self._stream.read(size)
        self._left -= len(piece)
        if self._left < 0:
            raise InvalidInput.one(self._name, "is larger than its archive says")
        return piece


def _file_problems(sizes: dict[str, int], wanted: set[str]) -> Iterator[Problem]:
    for name in sorted(sizes.keys() - wanted - set(TAKEN_ALONG)):
        suffix = PurePosixPath(name).suffix
        why = "it can run code" if suffix in (".pt", ".pth", ".pkl", ".bin", ".ckpt", ".py") else "it is not needed"
        yield Problem(name, f"is not taken: {why}; a model is {WEIGHTS} and {CARD}")
    members = {name.rpartition("/")[0] for name in wanted}
    if not members:
        yield Problem("", f"has no {WEIGHTS} with a {CARD}")
    if "" in members and len(members) > 1:
        yield Problem("", "has a model and folds beside it; take one of them")
    if len(members) > MOST_MEMBERS:
        yield Problem("", f"has {len(members)} folds, more than {MOST_MEMBERS}")
    for member in sorted(members):
        for name in (WEIGHTS, CARD):
            place = f"{member}/{name}" if member else name
            if place not in sizes:
                yield Problem(place, "is missing")
            elif sizes[place] > (most := MOST_WEIGHTS if name == WEIGHTS else MOST_CARD):
                yield Problem(place, f"has {sizes[place]} bytes, more than {most}")


# ── safetensors ───────────────────────────────────────────────────────────────────────────────────────────────────


def header_problems(path: Path, told: str = WEIGHTS) -> list[Problem]:
    """What is wrong with a safetensors file before any tensor of it is looked at: its header, and that tensors lie one
    behind the other from the first byte to the last, each as long as its shape says, none over another."""
    size = path.stat().st_size
    with path.open("rb") as file:
        beginning = file.read(8)
        if len(beginning) < 8:
            return [Problem(told, "is too short to be a safetensors file")]
        (length,) = struct.unpack("<Q", beginning)
        if length > min(MOST_HEADER, size - 8):
            return [Problem(told, f"claims a header of {length} bytes; it may have {min(MOST_HEADER, size - 8)}")]
        try:
            header = json.loads(file.read(length), object_pairs_hook=_each_once)
        except (ValueError, RecursionError) as error:
            return [Problem(told, f"has a header that is not JSON: {error}")]
    if not isinstance(header, dict):
        return [Problem(told, "has a header that is no object")]
    header.pop("__metadata__", None)
    return _layout_problems(header, size - 8 - length, told)


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("a name stands twice")
    return made


def _layout_problems(header: dict[str, Any], size: int, told: str) -> list[Problem]:
    problems, spans = [], []
    for name, entry in header.items():
        found = _span(entry)
        if found is None:
            problems.append(Problem(told, f"{name} has no dtype, shape and offsets that could be used"))
            continue
        begin, end, expected = found
        if end > size or end - begin != expected:
            problems.append(Problem(told, f"{name} has bytes {begin} to {end} of {size}, and needs {expected}"))
        spans.append((begin, end, name))
    reached = 0
    for begin, end, name in sorted(spans):
        if begin != reached:
            what = "lies over the tensor before it" if begin < reached else "has a gap before it"
            problems.append(Problem(told, f"{name} {what}: it begins at byte {begin}, not {reached}"))
        reached = max(reached, end)
    if not problems and reached != size:
        problems.append(Problem(told, f"has {size - reached} bytes behind its last tensor"))
    return problems


def _span(entry: object) -> tuple[int, int, int] | None:
    """(begin, end, bytes that the shape needs) of a header's entry; None where it is none."""
    if not isinstance(entry, dict):
        return None
    dtype, shape, offsets = (entry.get(name) for name in ("dtype", "shape", "data_offsets"))
    if dtype not in SIZES or not isinstance(shape, list) or not isinstance(offsets, list) or len(offsets) != 2:
        return None
    numbers = [*shape, *offsets]
    if len(shape) > 8 or not all(type(number) is int and 0 <= number < 2**48 for number in numbers):
        return None
    needed = SIZES[dtype]
    for side in shape:
        needed *= side
    return offsets[0], offsets[1], needed
