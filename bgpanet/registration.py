"""Registering a data set: read, checked, packed. What comes out never changes again. Imports no torch."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bgpanet.data.archives import extract
from bgpanet.data.index import Index
from bgpanet.data.pack import pack, read_pack
from bgpanet.data.readers import read
from bgpanet.errors import DataDamaged, Interrupted, InvalidInput
from bgpanet.events import ArtifactWritten, Progress, Report, Result
from bgpanet.specs import RegisterSpec

MEDIA_TYPES = {".json": "application/json", ".tar": "application/x-tar"}
STEPS = {"unpacking": (0.0, 0.2), "reading": (0.2, 0.5), "packing": (0.5, 1.0)}
"""Which part of the whole each step is."""
LITTER = ("__MACOSX",)  # what one system puts beside what it was asked to pack


def register(spec: RegisterSpec, output: Path, report: Report, stop: Callable[[], bool]) -> dict[str, Any]:
    """Writes `index.json` and `images.tar` into `output`. Returns what is known of the data set, which is also
    reported as `Result`. `spec.data` names a folder, or an archive, which is unpacked into `output` first.

    Raises:
        InvalidInput: the data can't be used; with every problem.
        Interrupted: asked to stop; the next try starts over.
        OSError: the output could not be written.
    """
    if spec.data is None:
        raise InvalidInput.one("data", "must say where the images lie: {format: …, path: …}")

    said = _Said(report, stop)
    path = Path(spec.data.path)
    if path.is_file():
        path = unpack(path, output / "unpacked", said.of("unpacking"))
    index = read(spec.data.format, path, said.of("reading"))
    if not index.records:
        raise InvalidInput.one("path", "holds no images")
    try:
        packed = pack(index, output, said.of("packing"))
    except DataDamaged as error:
        raise InvalidInput.one("path", f"changed while it was read: {error}") from None
    files = [packed / name for name in ("images.tar", "index.json")]
    for file in files:
        report(ArtifactWritten(name=file.name, path=str(file), media_type=MEDIA_TYPES[file.suffix]))
    facts = describe(read_pack(packed), spec, files)
    report(Result(summary=facts))
    return facts


def unpack(archive: Path, folder: Path, progress: Callable[[int, int], None]) -> Path:
    """Unpacks a zip or tar. Returns the folder of its files: the only one inside, where there is nothing beside it.

    Raises:
        InvalidInput: the archive is damaged, or not safe to unpack.
    """
    extract(archive, folder, progress=progress)
    for name in LITTER:
        shutil.rmtree(folder / name, ignore_errors=True)
    while len(inside := list(folder.iterdir())) == 1 and inside[0].is_dir():
        folder = inside[0]
    return folder


class _Said:
    """Tells how far it is, and ends where a stop is wished."""

    def __init__(self, report: Report, stop: Callable[[], bool]) -> None:
        self._report, self._stop = report, stop
        self._told = ("", -1)

    def of(self, step: str) -> Callable[[int, int], None]:
        """The progress of one step."""
        begin, end = STEPS[step]

        def say(done: int, total: int) -> None:
            if self._stop():
                raise Interrupted("stopped while the data set was registered; the next try starts over")
            percent = 100 * done // max(total, 1)
            if (step, percent) != self._told:
                self._told = (step, percent)
                fraction = begin + (end - begin) * done / max(total, 1)
                counted = f"{percent} %" if step == "unpacking" else f"{done} of {total} images"
                self._report(Progress(fraction=fraction, message=f"{step}, {counted}"))

        return say


def describe(index: Index, spec: RegisterSpec, files: Sequence[Path]) -> dict[str, Any]:
    """What a list of data sets shows without opening one; plain JSON values."""
    return {
        "format": index.format,
        "digest": index.digest,
        "synthetic": index.synthetic,
        "classes": list(index.classes),
        "images": len(index.records),
        "groups": len(set(index.groups)),
        "group_unit": index.group_unit,
        "class_counts": class_counts(index),
        "columns": sorted({name for record in index.records for name in record.attributes}),
        "licence": spec.licence,
        "citation": spec.citation,
        "bytes": sum(file.stat().st_size for file in files),
        "findings": [{**vars(finding), "rows": list(finding.rows)} for finding in index.findings],
    }


def class_counts(index: Index) -> list[dict[str, Any]]:
    """Images and groups of each class."""
    counts = []
    for label, name in enumerate(index.classes):
        mask = index.labels == label
        counts.append({"class": name, "images": int(mask.sum()), "groups": len(set(index.groups[mask]))})
    return counts
