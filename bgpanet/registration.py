"""Registering a data set: read, checked, packed. What comes out never changes again. Imports no torch."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from bgpanet.data.archives import extract
from bgpanet.data.checks import FINGERPRINTS, Checks, check
from bgpanet.data.duplicates import Fingerprints
from bgpanet.data.index import Index
from bgpanet.data.pack import IMAGES, INDEX, pack, read_pack
from bgpanet.data.readers import read
from bgpanet.data.splits import lock
from bgpanet.errors import DataDamaged, DataRefused, Interrupted, InvalidInput, Problem
from bgpanet.events import ArtifactWritten, Progress, Report, Result
from bgpanet.specs import RegisterSpec

CHECKS = "checks.json"
LOCKED = "locked"
LOCKED_FILES = {f"{LOCKED}-{name}": name for name in (IMAGES, INDEX)}
"""Names of the locked part's files beside those of the open one, and what they are called in a folder of their own."""
MEDIA_TYPES = {".json": "application/json", ".tar": "application/x-tar", ".npz": "application/octet-stream"}
STEPS = {"unpacking": (0.0, 0.1), "reading": (0.1, 0.2), "checking": (0.2, 0.85), "packing": (0.85, 1.0)}
"""Which part of the whole each step is."""
LITTER = ("__MACOSX",)  # what one system puts beside what it was asked to pack


def register(
    spec: RegisterSpec, output: Path, report: Report, stop: Callable[[], bool], threads: int | None = None
) -> dict[str, Any]:
    """Writes the packed data set, the report of its checks and its images' fingerprints into `output`. Returns what is
    known of it, which is also reported as `Result`. `spec.data` names a folder, or an archive, which is unpacked first.
    With `spec.locked` the part that it cuts is packed apart, so that who is handed the other one can't see it.

    Raises:
        InvalidInput: the data can't be used; with every problem.
        DataRefused: the same, with what else was found.
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
    others = {name: Fingerprints.read(Path(file)) for name, file in spec.others.items()}
    try:
        checks = check(index, said.of("checking"), others=others, workers=threads)
        if checks.refused:
            raise DataRefused((finding.level, Problem(finding.where, finding.what)) for finding in checks.findings)
        licence, citation = spec.licence or checks.index.licence, spec.citation or checks.index.citation
        opened, locked = replace(checks.index, licence=licence, citation=citation), None
        if spec.locked is not None:
            opened, locked = lock(opened, spec.locked.share, spec.locked.seed)
            pack(locked, output / LOCKED, said.of("packing"))
        pack(opened, output, said.of("packing"))
    except DataDamaged as error:
        raise InvalidInput.one("path", f"changed while it was read: {error}") from None
    checks.fingerprints.write(output / FINGERPRINTS)
    (output / CHECKS).write_text(json.dumps(checks.as_json()), encoding="utf-8")
    files = [output / name for name in (IMAGES, INDEX, CHECKS, FINGERPRINTS)]
    named = {file.name: file for file in files}
    if locked is not None:
        named |= {name: output / LOCKED / inside for name, inside in LOCKED_FILES.items()}
    for name, file in named.items():
        report(ArtifactWritten(name=name, path=str(file), media_type=MEDIA_TYPES[file.suffix]))
    facts = describe(read_pack(output), None if locked is None else read_pack(output / LOCKED), spec, checks)
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


def describe(index: Index, locked: Index | None, spec: RegisterSpec, checks: Checks) -> dict[str, Any]:
    """What a list of data sets shows without opening one; plain JSON values. Counts are those of the open part."""
    told = checks.as_json()
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
        "licence": index.licence or None,
        "citation": index.citation or None,
        "locked": {}
        if locked is None or spec.locked is None
        else {
            "share": spec.locked.share,
            "seed": spec.locked.seed,
            "digest": locked.digest,
            "images": len(locked.records),
            "groups": len(set(locked.groups)),
            "class_counts": class_counts(locked),
        },
        "findings": told["findings"],
        "checks": {
            **{name: told[name] for name in ("images", "missing")},
            **{name: {kind: pairs["count"] for kind, pairs in told[name].items()} for name in ("duplicates", "shared")},
            "unreadable": len(told["unreadable"]),
        },
    }


def class_counts(index: Index) -> list[dict[str, Any]]:
    """Images and groups of each class."""
    counts = []
    for label, name in enumerate(index.classes):
        mask = index.labels == label
        counts.append({"class": name, "images": int(mask.sum()), "groups": len(set(index.groups[mask]))})
    return counts
