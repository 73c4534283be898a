"""HAM10000 in its official layout (Tschandl et al. 2018, doi 10.1038/sdata.2018.161).

    HAM10000_metadata.csv                      lesion_id, image_id, dx, dx_type, age, sex, localization
    HAM10000_images_part_1/, …_part_2/         <image_id>.jpg
    HAM10000_duplicates_across_lesions.csv     optional: from_img, to_img; one image under two lesions

Images are grouped by lesion. Lesions that share an image, by that table or byte for byte, are one group: a split by
lesion_id alone would show a net in training what it is tested on.
"""

import csv
import io
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from bgpanet.data.index import ImageRecord, Index, identical_images, join_groups
from bgpanet.data.readers.files import IMAGE_ID, SYNTHETIC_MARKER, Complaints, ImageFile, inspect
from bgpanet.errors import InvalidInput

METADATA = "HAM10000_metadata.csv"
DUPLICATES = "HAM10000_duplicates_across_lesions.csv"
FOLDERS = ("HAM10000_images_part_1", "HAM10000_images_part_2")
CLASSES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
COLUMNS = ("lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization")
Row = dict[str, str]


def read(path: Path, progress: Callable[[int, int], None] | None = None) -> Index:
    """The index. Raises InvalidInput with every problem of table and files."""
    rows = _table(path / METADATA, COLUMNS)
    refused, warned = Complaints(), Complaints()
    _check_rows(rows, refused, warned)
    files = _files(path, rows, refused, warned, progress)
    pairs = _known_pairs(path / DUPLICATES, rows, refused)
    if problems := refused.problems():
        raise InvalidInput(problems)
    for same in identical_images((row["image_id"], row["lesion_id"], files[row["image_id"]][1].sha256) for row in rows):
        pairs += [(same[0][1], lesion) for _, lesion in same[1:]]
        warned.add("images are byte-identical; their lesions are kept together", " = ".join(i for i, _ in same))
    group_of = join_groups((row["lesion_id"] for row in rows), pairs)
    return Index(
        format="ham10000",
        classes=CLASSES,
        records=tuple(_record(row, *files[row["image_id"]], group_of[row["lesion_id"]]) for row in rows),
        group_unit="lesion",
        findings=tuple(warned.findings()),
        synthetic=(path / SYNTHETIC_MARKER).exists(),
    )


def _record(row: Row, path: Path, file: ImageFile, group: str) -> ImageRecord:
    attributes = {name: row[name] for name in ("lesion_id", "dx_type", "age", "sex", "localization")}
    label = CLASSES.index(row["dx"])
    return ImageRecord(row["image_id"], path, 0, file.size, file.sha256, label, group, attributes)


def _table(path: Path, columns: tuple[str, ...]) -> list[Row]:
    """Rows of a CSV file that has these columns; a row's number is its position plus 2."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        if "\0" in text:
            raise ValueError("it contains NUL")
        reader = csv.DictReader(io.StringIO(text, newline=""))
        missing = [name for name in columns if name not in (reader.fieldnames or [])]
        if missing:
            raise InvalidInput.one(path.name, f"has no column {', '.join(missing)}; it needs {', '.join(columns)}")
        rows = [{name: (row[name] or "").strip() for name in columns} for row in reader]
    except FileNotFoundError:
        raise InvalidInput.one(path.name, f"is missing in {path.parent}; name the folder that holds it") from None
    except (OSError, ValueError, csv.Error) as error:
        raise InvalidInput.one(path.name, f"can't be read as a table: {error}") from None
    if not rows:
        raise InvalidInput.one(path.name, "has no rows")
    return rows


def _check_rows(rows: list[Row], refused: Complaints, warned: Complaints) -> None:
    first: dict[str, int] = {}
    diagnoses: defaultdict[str, set[str]] = defaultdict(set)
    for number, row in enumerate(rows, start=2):
        where = f"{METADATA}:{number}"
        image_id, dx = row["image_id"], row["dx"]
        if not IMAGE_ID.fullmatch(image_id):
            refused.add("image_id must be letters, digits, dots, dashes and underscores", where)
        elif image_id in first:
            refused.add("image_id stands in the table twice", f"{where} ({image_id}, first in row {first[image_id]})")
        first.setdefault(image_id, number)
        if not row["lesion_id"]:
            refused.add("lesion_id is empty", where)
        if dx not in CLASSES:
            refused.add(f"unknown dx; known are {', '.join(CLASSES)}", f"{where} ({dx!r})")
        diagnoses[row["lesion_id"]].add(dx)
    for lesion, found in sorted(diagnoses.items()):
        if lesion and len(found) > 1:
            warned.add("a lesion has two diagnoses; it is stratified by the more frequent one", lesion)


def _files(
    path: Path,
    rows: list[Row],
    refused: Complaints,
    warned: Complaints,
    progress: Callable[[int, int], None] | None,
) -> dict[str, tuple[Path, ImageFile]]:
    found: dict[str, tuple[Path, ImageFile]] = {}
    for number, row in enumerate(rows, start=1):
        image_id = row["image_id"]
        if IMAGE_ID.fullmatch(image_id) and image_id not in found:
            places = [path / folder / f"{image_id}.jpg" for folder in FOLDERS]
            file = next((place for place in places if place.is_file()), None)
            try:
                if file is None:
                    refused.add(f"there is no such image in {' or '.join(FOLDERS)}", f"{image_id}.jpg")
                else:
                    found[image_id] = (file, inspect(file))
            except OSError as error:
                refused.add(f"the image can't be read: {error.strerror}", f"{image_id}.jpg")
        if progress is not None and (number % 100 == 0 or number == len(rows)):
            progress(number, len(rows))
    for image_id, (_, looked_at) in found.items():
        if not looked_at.looks_like_image:
            warned.add(
                "the file is neither JPEG nor PNG nor TIFF, BMP or WebP and will count as unreadable", f"{image_id}.jpg"
            )
    return found


def _known_pairs(path: Path, rows: list[Row], refused: Complaints) -> list[tuple[str, str]]:
    """Pairs of lesions that share an image, by the table of duplicates if there is one."""
    if not path.exists():
        return []
    lesion_of = {row["image_id"]: row["lesion_id"] for row in rows}
    pairs = []
    for number, row in enumerate(_table(path, ("from_img", "to_img")), start=2):
        first, second = (row[name].removesuffix(".jpg") for name in ("from_img", "to_img"))
        if first in lesion_of and second in lesion_of:
            pairs.append((lesion_of[first], lesion_of[second]))
        else:
            refused.add(f"the image is not in {METADATA}", f"{path.name}:{number}")
    return pairs
