"""Everything that is to be known of a data set before it is used, in one report: what is wrong with which images, what
belongs together, what is missing.

    checks = check(read(format, path), progress, others={"ham10000 1": Fingerprints.read(…)})
    if checks.refused: …
    pack(checks.index, folder)                      # its findings are those of reader and checks together
    checks.fingerprints.write(folder / FINGERPRINTS)
"""

import io
import os
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from bgpanet.data.cleaning import MOST_PIXELS, SUFFIXES, Cleaned, clean
from bgpanet.data.duplicates import LONGER_SIDE, Features, Fingerprints, Pair, features, find_pairs
from bgpanet.data.index import Finding, ImageRecord, Index, Level

FINGERPRINTS = "fingerprints.npz"
ROWS = 50  # image ids that a finding names; the rest is counted
PAIRS = 1000  # pairs of one kind that the report names
FEWEST_GROUPS = 5  # of a class: fewer do not suffice for the usual five folds
FLAT = 1.0  # grey levels of standard deviation
LOOKED_AT_ONCE = 64  # images whose results wait
LEVELS: tuple[Level, ...] = ("refused", "excluded", "warned")
MEMBERS = "inside a group", "across groups", "across classes"


@dataclass(frozen=True)
class Checks:
    """The report.

    index: what was checked, with all findings. fingerprints: of its readable images; kept by who registers, and handed
    in as `others` the next time. unreadable: why, by image id. images: counts of formats, modes and sizes, and pixel
    statistics. duplicates: pairs inside the data set by what they join (see `MEMBERS`; a pair across classes is also
    one of the other two). shared: pairs with other data sets, by their name, the first of each pair being ours.
    """

    index: Index
    fingerprints: Fingerprints
    unreadable: Mapping[str, str]
    images: Mapping[str, Any]
    duplicates: Mapping[str, Sequence[Pair]]
    shared: Mapping[str, Sequence[Pair]]

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Refused first, then excluded, then warned."""
        return self.index.findings

    @property
    def refused(self) -> bool:
        """Whether the data set must not be used."""
        return any(finding.level == "refused" for finding in self.findings)

    def as_json(self) -> dict[str, Any]:
        """All but index and fingerprints, as plain JSON values."""
        return {
            "findings": [
                {**vars(finding), "rows": list(finding.rows), "count": finding.count} for finding in self.findings
            ],
            "classes": _classes(self.index),
            "groups": _groups(self.index),
            "missing": _missing(self.index),
            "images": dict(self.images),
            "unreadable": dict(self.unreadable),
            "duplicates": {name: _told(pairs) for name, pairs in self.duplicates.items()},
            "shared": {name: _told(pairs) for name, pairs in self.shared.items()},
        }


@dataclass(frozen=True)
class _Look:
    """What one image is. error: why it can't be read. oddities: findings that only warn."""

    error: str | None
    oddities: tuple[str, ...]
    format: str | None = None
    mode: str = ""
    size: tuple[int, int] = (0, 0)
    mean: tuple[float, ...] = ()
    features: Features | None = None


def check(
    index: Index,
    progress: Callable[[int, int], None] | None = None,
    *,
    others: Mapping[str, Fingerprints] | None = None,
    workers: int | None = None,
) -> Checks:
    """Reads every image once, in `workers` threads, and tells all that is found; an unreadable image is a finding and
    stays in the index, excluded: no split uses it, and in a prediction it is a row with its error.

    others: fingerprints of other data sets by their names; images that are in both are told loudly. `progress` is
    called with images done and in all, in this thread, and may raise to stop.

    Raises:
        DataDamaged: an image is not any more what it was when it was indexed.
    """
    looks: list[_Look] = []
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        for start in range(0, len(index.records), LOOKED_AT_ONCE):
            looks.extend(pool.map(_look, index.records[start : start + LOOKED_AT_ONCE]))
            if progress is not None:
                progress(len(looks), len(index.records))
    prints = Fingerprints.of(
        (record.image_id, record.sha256, look.features)
        for record, look in zip(index.records, looks, strict=True)
        if look.features is not None
    )
    duplicates = _by_members(index, find_pairs(prints))
    shared = {name: find_pairs(prints, other) for name, other in (others or {}).items()}
    found = [
        *_of_images(index, looks),
        *_of_classes(index),
        *_of_pairs(index, duplicates),
        *(_of_shared(name, pairs) for name, pairs in shared.items() if pairs),
    ]
    findings = sorted((*index.findings, *found), key=lambda finding: LEVELS.index(finding.level))
    return Checks(
        index=replace(index, findings=tuple(findings)),
        fingerprints=prints,
        unreadable={r.image_id: look.error for r, look in zip(index.records, looks, strict=True) if look.error},
        images=_summary(looks),
        duplicates=duplicates,
        shared=shared,
    )


# ── One image ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _look(record: ImageRecord) -> _Look:
    source = record.read_source()
    content, cleaned = record.cleaned(source), clean(source)
    oddities = [*cleaned.notes]
    suffix = record.path.suffix.lower()
    if cleaned.format and suffix in sum(SUFFIXES.values(), ()) and suffix not in SUFFIXES[cleaned.format]:
        oddities.append(f"the file's name ends in {suffix}, but it is {cleaned.format}")
    if not source:
        return _Look("it is empty", ())
    if cleaned.format is None:
        return _Look("it is no JPEG, PNG, TIFF, BMP or WebP whose pixels can be read", ())
    try:
        return _decoded(content, cleaned, oddities)
    except MemoryError:
        raise
    except Exception as error:  # whatever a hostile file makes of its decoder
        return _Look(_reason(error), tuple(oddities), cleaned.format)


def _decoded(content: bytes, cleaned: Cleaned, oddities: list[str]) -> _Look:
    with warnings.catch_warnings(), Image.open(io.BytesIO(content), formats=["JPEG", "PNG"]) as image:
        warnings.simplefilter("ignore")
        size, mode = image.size, image.mode
        if size[0] * size[1] > MOST_PIXELS:
            raise ValueError(f"it claims {size[0]:,} x {size[1]:,} pixels, more than {MOST_PIXELS:,}")
        deep = mode.startswith("I") or (image.format == "PNG" and content[24] == 16)
        if mode == "CMYK":
            oddities.append("it is CMYK and is converted to RGB")
        if mode in ("1", "L", "LA") or mode.startswith("I"):
            oddities.append("it is grey: its three channels are the same")
        if deep:
            oddities.append("it has 16 bits a channel; the upper 8 are used")
        if "A" in mode or "transparency" in image.info:
            oddities.append("it has transparent parts, which count as white")
        image.draft("RGB", (LONGER_SIDE, LONGER_SIDE))
        image.load()
        if mode.startswith("I"):
            values = (np.asarray(image, np.int64) >> 8).clip(0, 255).astype(np.uint8)
            rgb = Image.fromarray(values).convert("RGB")
        else:
            rgb = image.convert("RGB")
        small = rgb.resize((64, 64), Image.Resampling.BILINEAR)
        pixels = np.asarray(small, np.float32)
        if pixels.std(axis=(0, 1)).max() < FLAT:
            oddities.append("it shows nothing but one colour")
        mean = tuple(float(value) for value in pixels.mean(axis=(0, 1)))
        return _Look(None, tuple(oddities), cleaned.format, mode, size, mean, features(rgb))


def _reason(error: Exception) -> str:
    text = str(error)
    if isinstance(error, Image.DecompressionBombError):
        return f"it claims more than {MOST_PIXELS:,} pixels"
    if "truncated" in text or "cut off" in text or "broken data stream" in text:
        return "it is cut off or its data is broken"
    return text if isinstance(error, ValueError) else f"its pixels can't be read ({type(error).__name__})"


# ── Findings ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _finding(level: Level, what: str, rows: Sequence[str]) -> Finding:
    more = len(rows) - 5
    where = ", ".join(rows[:5]) + (f" and {more:,} more" if more > 0 else "")
    return Finding(level, where, what, tuple(rows[:ROWS]), len(rows))


def _of_images(index: Index, looks: Sequence[_Look]) -> Iterator[Finding]:
    rows: defaultdict[tuple[Level, str], list[str]] = defaultdict(list)
    for record, look in zip(index.records, looks, strict=True):
        if look.error is not None:
            rows["excluded", f"the image can't be used: {look.error}"].append(record.image_id)
        for oddity in look.oddities:
            rows["warned", oddity].append(record.image_id)
    if all(look.error is not None for look in looks):
        yield Finding("refused", "images", "not one of them can be read")
    for (level, what), image_ids in rows.items():
        yield _finding(level, what, image_ids)


def _of_classes(index: Index) -> Iterator[Finding]:
    for name, counts in _classes(index).items():
        if counts["groups"] < FEWEST_GROUPS:
            unit = index.group_unit
            what = f"the class has {counts['groups']} groups ({unit}); five folds need {FEWEST_GROUPS}"
            yield Finding("warned", name, what)


def _of_pairs(index: Index, duplicates: Mapping[str, Sequence[Pair]]) -> Iterator[Finding]:
    if across := duplicates["across groups"]:
        what = (
            f"images of two groups ({index.group_unit}) show the same: a split may train on one and test on the other; "
            "look at them, and join their groups where it is so"
        )
        yield _finding("warned", what, [f"{pair.first} = {pair.second}" for pair in across])
    if across := duplicates["across classes"]:
        what = "images of two classes show the same; one of the two labels is wrong"
        yield _finding("warned", what, [f"{pair.first} = {pair.second}" for pair in across])


def _of_shared(name: str, pairs: Sequence[Pair]) -> Finding:
    ours = len({pair.first for pair in pairs})
    what = (
        f"SHARED WITH DATA SET {name}: {ours:,} images of this data set show what images of that one show; never train "
        "on one and test on the other"
    )
    return _finding("warned", what, [f"{pair.first} = {pair.second} of {name}" for pair in pairs])


def _by_members(index: Index, pairs: Sequence[Pair]) -> dict[str, list[Pair]]:
    record = {record.image_id: record for record in index.records}
    found: dict[str, list[Pair]] = {name: [] for name in MEMBERS}
    for pair in pairs:
        first, second = record[pair.first], record[pair.second]
        found["inside a group" if first.group == second.group else "across groups"].append(pair)
        if first.label != second.label and None not in (first.label, second.label):
            found["across classes"].append(pair)
    return found


# ── Summaries ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _classes(index: Index) -> dict[str, dict[str, int]]:
    return {
        name: {"images": int((mine := index.labels == label).sum()), "groups": len(set(index.groups[mine]))}
        for label, name in enumerate(index.classes)
    }


def _groups(index: Index) -> dict[str, Any]:
    """sizes: how many groups have how many images."""
    sizes = Counter(Counter(index.groups.tolist()).values())
    return {
        "unit": index.group_unit,
        "count": len(set(index.groups.tolist())),
        "sizes": {str(size): sizes[size] for size in sorted(sizes)},
    }


def _missing(index: Index) -> dict[str, int]:
    """By column: images that have nothing there, `label` being one."""
    names = sorted({name for record in index.records for name in record.attributes})
    missing = {name: sum(not record.attributes.get(name) for record in index.records) for name in names}
    return {"label": int((index.labels < 0).sum()), **missing}


def _summary(looks: Sequence[_Look]) -> dict[str, Any]:
    """mean, std: of the readable images' mean colours, RGB, 0 to 255."""
    readable = [look for look in looks if look.error is None]
    sizes = Counter(look.size for look in readable).most_common(20)
    colours = np.array([look.mean for look in readable]).reshape(-1, 3)
    return {
        "count": len(looks),
        "unreadable": len(looks) - len(readable),
        "formats": dict(Counter(str(look.format) for look in readable)),
        "modes": dict(Counter(look.mode for look in readable)),
        "sizes": [{"width": width, "height": height, "images": count} for (width, height), count in sizes],
        "mean": colours.mean(axis=0).round(2).tolist() if readable else None,
        "std": colours.std(axis=0).round(2).tolist() if readable else None,
    }


def _told(pairs: Sequence[Pair]) -> dict[str, Any]:
    rows = [{"first": p.first, "second": p.second, "agreeing": p.agreeing} for p in pairs[:PAIRS]]
    return {"count": len(pairs), "identical": sum(pair.identical for pair in pairs), "pairs": rows}
