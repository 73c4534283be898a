"""HAM10000 in its official layout (Tschandl et al. 2018, doi 10.1038/sdata.2018.161).

    HAM10000_metadata.csv                      lesion_id, image_id, dx, dx_type, age, sex, localization
    HAM10000_images_part_1/, …_part_2/         <image_id>.jpg
    HAM10000_duplicates_across_lesions.csv     optional: from_img, to_img; one image under two lesions

Images are grouped by lesion. Lesions that share an image, by that table or byte for byte, are one group: a split by
lesion_id alone would show a net in training what it is tested on.
"""

from pathlib import Path

from bgpanet.data.index import Index
from bgpanet.data.readers.about import About, about
from bgpanet.data.readers.draft import Draft, Progress, Row
from bgpanet.data.readers.files import IMAGE_ID, first_file
from bgpanet.data.readers.tables import read_table

METADATA = "HAM10000_metadata.csv"
DUPLICATES = "HAM10000_duplicates_across_lesions.csv"
FOLDERS = ("HAM10000_images_part_1", "HAM10000_images_part_2")
CLASSES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
COLUMNS = ("lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization")
ATTRIBUTES = ("lesion_id", "dx_type", "age", "sex", "localization")
ABOUT = About(licence="CC BY-NC 4.0", citation="Tschandl, Rosendahl, Kittler 2018, doi 10.1038/sdata.2018.161")


def read(path: Path, progress: Progress | None = None) -> Index:
    """The index. Raises InvalidInput with every problem of table and files."""
    draft = Draft("ham10000", path, about(path, ABOUT), CLASSES, "lesion", [])
    for row in read_table(path / METADATA, COLUMNS).rows:
        image_id, lesion = row["image_id"], row["lesion_id"]
        file = None
        if not lesion:
            draft.refused.add("lesion_id is empty", row.where)
        if IMAGE_ID.fullmatch(image_id):
            file = first_file([path / folder / f"{image_id}.jpg" for folder in FOLDERS])
            if file is None:
                draft.refused.add(f"there is no such image in {' or '.join(FOLDERS)}", f"{row.where} ({image_id}.jpg)")
        attributes = {name: row[name] for name in ATTRIBUTES}
        draft.rows.append(Row(row.where, image_id, file, row["dx"], lesion, lesion, attributes))
    join_known_duplicates(draft)
    return draft.index(progress)


def join_known_duplicates(draft: Draft) -> None:
    """Joins lesions that share an image by the table of duplicates, if there is one."""
    path = draft.path / DUPLICATES
    if not path.exists():
        return
    group_of = {row.image_id: row.group for row in draft.rows}
    for row in read_table(path, ("from_img", "to_img")).rows:
        first, second = (row[name].removesuffix(".jpg") for name in ("from_img", "to_img"))
        if first in group_of and second in group_of:
            draft.pairs.append((group_of[first], group_of[second]))
        else:
            draft.refused.add("the image is not in the data set's table", row.where)
