"""ISIC 2018, task 3, as its archives unpack (Codella et al. 2019, arXiv 1902.03368): HAM10000's images, and more.

    ISIC2018_Task3_<Part>_GroundTruth.csv      image, and one column a class with 1 for the one and 0 for the others;
                                               or in a folder of the same name
    ISIC2018_Task3_<Part>_Input/               <image>.jpg
    ISIC2018_Task3_<Part>_LesionGroupings.csv  optional: image, lesion_id, diagnosis_confirm_type
    HAM10000_duplicates_across_lesions.csv     optional, as of HAM10000

Each part (Training, Validation, Test) whose ground truth is there is read, and named by the attribute `part`. Classes
have HAM10000's names, so that a model of the one can be applied to the other. Images are grouped by lesion; those
whose lesion is not told are groups of their own.
"""

from pathlib import Path

from bgpanet.data.index import Index
from bgpanet.data.readers import ham10000
from bgpanet.data.readers.about import About, about
from bgpanet.data.readers.draft import Draft, Progress, Row
from bgpanet.data.readers.files import IMAGE_ID, first_file
from bgpanet.data.readers.tables import Line, read_table
from bgpanet.errors import InvalidInput

PARTS = ("Training", "Validation", "Test")
CLASSES = ham10000.CLASSES
COLUMNS = {name.upper(): name for name in CLASSES}
ONE, ZERO = ("1", "1.0"), ("0", "0.0")
ABOUT = About(
    licence="CC BY-NC 4.0",
    citation=f"Codella et al. 2019, arXiv 1902.03368; {ham10000.ABOUT.citation}",
)


def read(path: Path, progress: Progress | None = None) -> Index:
    """The index. Raises InvalidInput with every problem of tables and files."""
    draft = Draft("isic2018", path, about(path, ABOUT), CLASSES, "image", [])
    tables = {part: table for part in PARTS if (table := _ground_truth(path, part)) is not None}
    if not tables:
        raise InvalidInput.one(str(path), "has no ISIC2018_Task3_Training_GroundTruth.csv, nor another part's")
    for part, table in tables.items():
        _read_part(draft, part, table)
    if len(tables) > 1:
        draft.warned.add(
            "these official parts are one data set here; the attribute `part` tells them", ", ".join(tables)
        )
    ham10000.join_known_duplicates(draft)
    return draft.index(progress)


def _ground_truth(path: Path, part: str) -> Path | None:
    name = f"ISIC2018_Task3_{part}_GroundTruth"
    return first_file([path / f"{name}.csv", path / name / f"{name}.csv"])


def _read_part(draft: Draft, part: str, table: Path) -> None:
    lesions = _lesions(draft.path / f"ISIC2018_Task3_{part}_LesionGroupings.csv")
    if lesions:
        draft.group_unit = "lesion"
    folder = f"ISIC2018_Task3_{part}_Input"
    for line in read_table(table, ("image", *COLUMNS)).rows:
        image_id, file = line["image"], None
        if IMAGE_ID.fullmatch(image_id):
            file = first_file([draft.path / folder / f"{image_id}.jpg"])
            if file is None:
                draft.refused.add(f"there is no such image in {folder}", f"{line.where} ({image_id}.jpg)")
        attributes = {"part": part.lower(), **lesions.get(image_id, {})}
        lesion = attributes.get("lesion_id", "")
        if lesions and not lesion:
            draft.warned.add("its lesion is not told; the image is a group of its own", f"{line.where} ({image_id})")
        label = _label(draft, line)
        draft.rows.append(Row(line.where, image_id, file, label, lesion or image_id, lesion, attributes))


def _label(draft: Draft, line: Line) -> str | None:
    ones = [name for column, name in COLUMNS.items() if line[column] in ONE]
    zeros = sum(line[column] in ZERO for column in COLUMNS)
    if len(ones) == 1 and zeros == len(COLUMNS) - 1:
        return ones[0]
    draft.refused.add("exactly one class must be 1 and every other 0", line.where)
    return None


def _lesions(path: Path) -> dict[str, dict[str, str]]:
    """Attributes of each image in a table of lesions, {} without the table."""
    if not path.exists():
        return {}
    columns = ("lesion_id", "diagnosis_confirm_type")
    lines = read_table(path, ("image", "lesion_id")).rows
    return {line["image"]: {name: line.cells.get(name, "") for name in columns} for line in lines}
