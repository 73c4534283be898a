"""Registering a data set: read, checked, packed. What comes out never changes again. Imports no torch."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bgpanet.data.index import Index
from bgpanet.data.pack import pack
from bgpanet.data.readers import read
from bgpanet.errors import DataDamaged, Interrupted, InvalidInput
from bgpanet.events import ArtifactWritten, Progress, Report, Result
from bgpanet.specs import RegisterSpec

MEDIA_TYPES = {".json": "application/json", ".tar": "application/x-tar"}
SAID_EVERY = 50  # images
PARTS = {"reading": (0.0, 0.4), "packing": (0.4, 1.0)}
"""Which part of the whole each step is."""


def register(spec: RegisterSpec, output: Path, report: Report, stop: Callable[[], bool]) -> dict[str, Any]:
    """Writes `index.json` and `images.tar` into `output`. Returns what is known of the data set, which is also
    reported as `Result`.

    Raises:
        InvalidInput: the data can't be used; with every problem.
        Interrupted: asked to stop; the next try starts over.
        OSError: the output could not be written.
    """
    if spec.data is None:
        raise InvalidInput.one("data", "must say where the images lie: {format: …, path: …}")

    def progress(part: str) -> Callable[[int, int], None]:
        begin, end = PARTS[part]

        def say(done: int, total: int) -> None:
            if stop():
                raise Interrupted("stopped while the data set was registered; the next try starts over")
            if done % SAID_EVERY == 0 or done == total:
                fraction = begin + (end - begin) * done / max(total, 1)
                report(Progress(fraction=fraction, step=done, steps=total, message=f"{part}, {done} of {total} images"))

        return say

    index = read(spec.data.format, Path(spec.data.path), progress("reading"))
    if not index.records:
        raise InvalidInput.one("path", "holds no images")
    try:
        packed = pack(index, output, progress("packing"))
    except DataDamaged as error:
        raise InvalidInput.one("path", f"changed while it was read: {error}") from None
    files = [packed / name for name in ("images.tar", "index.json")]
    for file in files:
        report(ArtifactWritten(name=file.name, path=str(file), media_type=MEDIA_TYPES[file.suffix]))
    facts = describe(index, spec, files)
    report(Result(summary=facts))
    return facts


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
        "findings": [{"level": f.level, "where": f.where, "what": f.what} for f in index.findings],
    }


def class_counts(index: Index) -> list[dict[str, Any]]:
    """Images and groups of each class."""
    counts = []
    for label, name in enumerate(index.classes):
        mask = index.labels == label
        counts.append({"class": name, "images": int(mask.sum()), "groups": len(set(index.groups[mask]))})
    return counts
