"""An index in the making: what all readers do with the rows that they found, in one place.

A reader fills in rows, pairs of groups that belong together, and what is wrong with its own files; `index` checks
what is the same everywhere (ids, labels, files), joins groups, and tells everything at once.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bgpanet.data.index import ImageRecord, Index, identical_images, join_groups
from bgpanet.data.readers.about import About
from bgpanet.data.readers.files import IMAGE_ID, Complaints, ImageFile, inspect
from bgpanet.errors import InvalidInput

USUAL_FOLDS = 5  # what a split has if nobody says otherwise (`FoldsSpec`)
SAID_EVERY = 100

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Row:
    """What a source tells of one image.

    where: the row or file, for complaints. file: where the image is, None where the reader did not find it and
    complained. label: a class's name, None if unknown. lesion: "" if unknown. encode: as of `ImageRecord`.
    """

    where: str
    image_id: str
    file: Path | None
    label: str | None
    group: str
    lesion: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)
    encode: Callable[[], bytes] | None = None


@dataclass
class Draft:
    """Everything that the index will be made of."""

    format: str
    path: Path
    about: About
    classes: tuple[str, ...]
    group_unit: str
    rows: list[Row]
    pairs: list[tuple[str, str]] = field(default_factory=list)
    refused: Complaints = field(default_factory=Complaints)
    excluded: Complaints = field(default_factory=Complaints)
    warned: Complaints = field(default_factory=Complaints)

    def index(self, progress: Progress | None = None) -> Index:
        """The index. Raises InvalidInput with every problem."""
        self._check_ids()
        self._check_classes()
        self._check_lesions()
        files = self._look_at_files(progress)
        if problems := self.refused.problems():
            raise InvalidInput(problems)
        rows = [row for row in self.rows if row.image_id in files]
        if not rows:
            raise InvalidInput(self.excluded.problems())
        group_of = self._groups(rows, files)
        self._check_sizes(rows, group_of)
        return Index(
            format=self.format,
            classes=self.classes,
            records=tuple(self._record(row, files[row.image_id], group_of[row.group]) for row in rows),
            group_unit=self.group_unit,
            findings=(*self.excluded.findings("excluded"), *self.warned.findings()),
            synthetic=self.about.synthetic,
            licence=self.about.licence,
            citation=self.about.citation,
        )

    def _record(self, row: Row, file: ImageFile, group: str) -> ImageRecord:
        label = None if row.label is None else self.classes.index(row.label)
        path = row.file or self.path
        return ImageRecord(row.image_id, path, 0, file.size, file.sha256, label, group, row.attributes, row.encode)

    def _check_ids(self) -> None:
        first: dict[str, str] = {}
        for row in self.rows:
            if not IMAGE_ID.fullmatch(row.image_id):
                self.refused.add(
                    "an image's id (its file's name) must be at most 100 letters, digits, dots, dashes and underscores",
                    row.where,
                )
            elif row.image_id in first:
                self.refused.add("another image has the same id", f"{row.where} (first {first[row.image_id]})")
            first.setdefault(row.image_id, row.where)

    def _check_classes(self) -> None:
        for name in self.classes:
            if not name or not name.isprintable():
                self.refused.add("a class must have a printable name in UTF-8", ascii(name))
        for same in _same(self.classes, str.casefold):
            self.refused.add("classes are the same or differ in capitals alone; give them one name", " and ".join(same))
        known = set(self.classes)
        for row in self.rows:
            if row.label is not None and row.label not in known:
                what = f"unknown label; known are {', '.join(self.classes)}"
                self.refused.add(what, f"{row.where} ({_short(row.label)})")

    def _check_lesions(self) -> None:
        diagnoses: defaultdict[str, set[str]] = defaultdict(set)
        for row in self.rows:
            if row.lesion and row.label is not None:
                diagnoses[row.lesion].add(row.label)
        for lesion, found in sorted(diagnoses.items()):
            if len(found) > 1:
                self.warned.add("a lesion has two diagnoses; its group counts for the more frequent one", lesion)

    def _look_at_files(self, progress: Progress | None) -> dict[str, ImageFile]:
        found: dict[str, ImageFile] = {}
        for number, row in enumerate(self.rows, start=1):
            if row.file is not None and IMAGE_ID.fullmatch(row.image_id) and row.image_id not in found:
                self._look_at(row, row.file, found)
            if progress is not None and (number % SAID_EVERY == 0 or number == len(self.rows)):
                progress(number, len(self.rows))
        return found

    def _look_at(self, row: Row, file: Path, found: dict[str, ImageFile]) -> None:
        try:
            looked_at = inspect(file.read_bytes() if row.encode is None else row.encode())
        except ValueError as error:
            self.excluded.add(str(error), row.where)
            return
        except OSError as error:
            self.refused.add(f"the image can't be read: {error.strerror}", _place(row, file))
            return
        found[row.image_id] = looked_at
        if not looked_at.looks_like_image:
            self.warned.add("the file is no image and will count as unreadable", _place(row, file))

    def _groups(self, rows: list[Row], files: dict[str, ImageFile]) -> dict[str, str]:
        """The joined group of each group."""
        pairs = list(self.pairs)
        for same in identical_images((row.image_id, row.group, files[row.image_id].sha256) for row in rows):
            pairs += [(same[0][1], group) for _, group in same[1:]]
            names = " = ".join(image_id for image_id, _ in same)
            self.warned.add("images are byte-identical; their groups are kept together", names)
        return join_groups({row.group for row in self.rows}.union(*pairs), pairs)

    def _check_sizes(self, rows: list[Row], group_of: dict[str, str]) -> None:
        if not self.classes:
            return
        if self.group_unit == "image":
            what = "nothing tells which images show the same lesion: each is its own group, and a split may leak"
            self.warned.add(what, self.path.name)
        counts = _groups_by_class(rows, group_of)
        for name in self.classes:
            if counts[name] < USUAL_FOLDS:
                what = f"a class has fewer than {USUAL_FOLDS} groups ({self.group_unit}s), the usual number of folds"
                self.warned.add(f"{what}; use fewer folds, merge the class or leave it out", f"{name} ({counts[name]})")


def _groups_by_class(rows: list[Row], group_of: dict[str, str]) -> Counter[str]:
    """Number of groups of each class, a group counted for its most frequent label as splits do."""
    labels: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        if row.label is not None:
            labels[group_of[row.group]][row.label] += 1
    return Counter(min(found, key=lambda name: (-found[name], name)) for found in labels.values())


def _same(names: Iterable[str], key: Callable[[str], str]) -> list[list[str]]:
    found: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        found[key(name)].append(name)
    return [same for same in found.values() if len(same) > 1]


def _place(row: Row, file: Path) -> str:
    return row.where if file.name in row.where or row.encode else f"{row.where} ({file.name})"


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "…")
