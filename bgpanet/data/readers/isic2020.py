"""ISIC 2020, as its archives unpack (doi 10.34970/2020-ds01): benign or malignant, grouped by patient.

    ISIC_2020_Training_GroundTruth.csv (or …_v2.csv)    image_name, patient_id, benign_malignant, and more
    ISIC_2020_Training_JPEG/train/ (or train/)          <image_name>.jpg
    ISIC_2020_Training_Duplicates.csv                   image_name_1, image_name_2: one image under two names

Of images that are the same by that table, the one whose name comes first in the alphabet stays; the others are
excluded. `age_approx` and `anatom_site_general_challenge` are the attributes `age` and `localization`, as elsewhere.
"""

from collections import defaultdict
from pathlib import Path

from bgpanet.data.index import Index, join_groups
from bgpanet.data.readers.about import About, about
from bgpanet.data.readers.draft import Draft, Progress, Row
from bgpanet.data.readers.files import IMAGE_ID, first_file
from bgpanet.data.readers.tables import Line, read_table
from bgpanet.errors import InvalidInput

TABLES = ("ISIC_2020_Training_GroundTruth.csv", "ISIC_2020_Training_GroundTruth_v2.csv")
DUPLICATES = "ISIC_2020_Training_Duplicates.csv"
FOLDERS = ("ISIC_2020_Training_JPEG/train", "train")
CLASSES = ("benign", "malignant")
COLUMNS = ("image_name", "patient_id", "benign_malignant")
ATTRIBUTES = {
    "patient_id": "patient_id",
    "lesion_id": "lesion_id",
    "sex": "sex",
    "age_approx": "age",
    "anatom_site_general_challenge": "localization",
    "diagnosis": "diagnosis",
}
ABOUT = About(licence="CC BY-NC 4.0", citation="International Skin Imaging Collaboration 2020, doi 10.34970/2020-ds01")


def read(path: Path, progress: Progress | None = None) -> Index:
    """The index. Raises InvalidInput with every problem of tables and files."""
    return draft(path).index(progress)


def draft(path: Path) -> Draft:
    """What the tables tell, duplicates left out; no image has been opened yet."""
    table = first_file([path / name for name in TABLES])
    if table is None:
        raise InvalidInput.one(TABLES[0], f"is missing in {path}; name the folder that holds it")
    made = Draft("isic2020", path, about(path, ABOUT), CLASSES, "patient", [])
    lines = read_table(table, COLUMNS).rows
    same = _known_duplicates(made, lines)
    for line in lines:
        image_id = line["image_name"]
        if same.get(image_id, image_id) != image_id:
            made.excluded.add(f"a duplicate by {DUPLICATES}; the first name of the same image stays", image_id)
        else:
            made.rows.append(_row(made, line))
    return made


def _row(made: Draft, line: Line) -> Row:
    image_id, patient, label = (line[column] for column in COLUMNS)
    file = None
    if not patient:
        made.refused.add("patient_id is empty", line.where)
    if line.cells.get("target") not in (None, str(int(label == CLASSES[1]))):
        made.refused.add("target and benign_malignant contradict each other", line.where)
    if IMAGE_ID.fullmatch(image_id):
        file = first_file([made.path / folder / f"{image_id}.jpg" for folder in FOLDERS])
        if file is None:
            made.refused.add(f"there is no such image in {' or '.join(FOLDERS)}", f"{line.where} ({image_id}.jpg)")
    attributes = {name: line[column] for column, name in ATTRIBUTES.items() if column in line.cells}
    return Row(line.where, image_id, file, label, patient, attributes.get("lesion_id", ""), attributes)


def _known_duplicates(made: Draft, lines: tuple[Line, ...]) -> dict[str, str]:
    """The name that stays, for each image of the table of duplicates; their patients are joined."""
    path = made.path / DUPLICATES
    if not path.exists():
        made.warned.add("is missing: images that it lists as the same stay and count twice", DUPLICATES)
        return {}
    line_of = {line["image_name"]: line for line in lines}
    pairs = []
    for row in read_table(path, ("image_name_1", "image_name_2")).rows:
        pair = row["image_name_1"].removesuffix(".jpg"), row["image_name_2"].removesuffix(".jpg")
        if pair[0] in line_of and pair[1] in line_of:
            pairs.append(pair)
            made.pairs.append((line_of[pair[0]]["patient_id"], line_of[pair[1]]["patient_id"]))
        else:
            made.refused.add("the image is not in the data set's table", row.where)
    stays = join_groups({name for pair in pairs for name in pair}, pairs)
    labels: defaultdict[str, set[str]] = defaultdict(set)
    for name, first in stays.items():
        labels[first].add(line_of[name]["benign_malignant"])
    for first in sorted(name for name, found in labels.items() if len(found) > 1):
        made.refused.add("duplicates of one image have two diagnoses; mend the table", first)
    return stays
