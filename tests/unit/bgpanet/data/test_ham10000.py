"""The reader of HAM10000's layout: on the real images, and on small folders with something wrong."""

import csv
from collections import Counter
from pathlib import Path

import pytest

from bgpanet.data.index import Index
from bgpanet.data.readers import read
from bgpanet.data.readers.ham10000 import CLASSES, COLUMNS, DUPLICATES, FOLDERS, METADATA
from bgpanet.errors import DataDamaged, InvalidInput

JPEG = b"\xff\xd8\xff\xe0 not much of an image "


def layout(folder: Path, rows: list[tuple[str, str, str]], same: tuple[str, ...] = ()) -> Path:
    """A folder with (lesion, image, dx) rows and a file for each image; those in `same` have the same bytes."""
    for number, (_, image_id, _) in enumerate(rows):
        half = folder / FOLDERS[number % 2]
        half.mkdir(parents=True, exist_ok=True)
        (half / f"{image_id}.jpg").write_bytes(JPEG + (b"same" if image_id in same else image_id.encode()))
    table(folder / METADATA, COLUMNS, [(*row, "histo", "50", "male", "back") for row in rows])
    return folder


def table(path: Path, columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])


def groups(index: Index) -> dict[str, str]:
    return {record.image_id: record.group for record in index.records}


def refusal(folder: Path) -> str:
    with pytest.raises(InvalidInput) as caught:
        read("ham10000", folder)
    return str(caught.value)


THREE = [("L1", "a", "nv"), ("L1", "b", "nv"), ("L2", "c", "mel")]


def test_images_of_both_folders_are_found_and_grouped_by_lesion(tmp_path: Path) -> None:
    index = read("ham10000", layout(tmp_path, THREE))
    assert groups(index) == {"a": "L1", "b": "L1", "c": "L2"}
    assert index.labels.tolist() == [CLASSES.index("nv"), CLASSES.index("nv"), CLASSES.index("mel")]
    assert (index.group_unit, index.synthetic, index.findings) == ("lesion", False, ())
    assert index.records[0].attributes["age"] == "50"
    assert index.records[2].read_source() == JPEG + b"c"


def test_lesions_that_share_an_image_by_the_table_or_byte_for_byte_become_one_group(tmp_path: Path) -> None:
    rows = [("L3", "a", "nv"), ("L1", "b", "nv"), ("L2", "c", "nv"), ("L4", "d", "nv")]
    layout(tmp_path, rows, same=("b", "c"))
    table(tmp_path / DUPLICATES, ("from_img", "to_img"), [("a.jpg", "b")])
    index = read("ham10000", tmp_path)
    assert groups(index) == {"a": "L1", "b": "L1", "c": "L1", "d": "L4"}
    assert [finding.level for finding in index.findings] == ["warned"]
    assert "b = c" in index.findings[0].where


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    rows = [*THREE, ("L9", "a", "nv"), ("", "d", "nv"), ("L4", "e", "wart"), ("L5", "f g", "nv")]
    layout(tmp_path, rows)
    (tmp_path / FOLDERS[0] / "c.jpg").unlink()
    text = refusal(tmp_path)
    for part in (
        "HAM10000_metadata.csv:5 (a, first in row 2): image_id stands in the table twice",
        "HAM10000_metadata.csv:6: lesion_id is empty",
        "HAM10000_metadata.csv:7 ('wart'): unknown dx; known are akiec",
        "HAM10000_metadata.csv:8: image_id must be letters",
        "c.jpg: there is no such image in HAM10000_images_part_1 or HAM10000_images_part_2",
    ):
        assert part in text


def test_of_many_places_with_one_problem_the_first_are_named_and_the_rest_counted(tmp_path: Path) -> None:
    text = refusal(layout(tmp_path, [(f"L{n}", f"i{n}", "wart") for n in range(20)]))
    assert "csv:6 ('wart') and 15 more: unknown dx" in text
    assert text.count("wart") == 5


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "is missing in"),
        (b"", "has no column lesion_id"),
        (b"lesion_id,image_id\nL,a\n", "has no column dx, dx_type, age, sex, localization"),
        (",".join(COLUMNS).encode(), "has no rows"),
        (b"\xff\xfe\x00", "can't be read as a table"),
        (",".join(COLUMNS).encode() + b"\na\0b\n", "contains NUL"),
    ],
)
def test_a_table_that_is_none_is_refused(tmp_path: Path, content: bytes | None, told: str) -> None:
    layout(tmp_path, THREE)
    (tmp_path / METADATA).unlink()
    if content is not None:
        (tmp_path / METADATA).write_bytes(content)
    assert told in refusal(tmp_path)


def test_an_image_id_can_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "secret.jpg").write_bytes(JPEG)
    folder = layout(tmp_path / "data", THREE)
    table(folder / METADATA, COLUMNS, [("L", "../../secret", "nv", "", "", "", "")])
    assert "image_id must be letters" in refusal(folder)


def test_a_duplicate_of_an_image_that_is_not_there_is_refused(tmp_path: Path) -> None:
    layout(tmp_path, THREE)
    table(tmp_path / DUPLICATES, ("from_img", "to_img"), [("a", "zz")])
    assert f"{DUPLICATES}:2: the image is not in {METADATA}" in refusal(tmp_path)


def test_what_can_be_used_with_care_is_a_warning(tmp_path: Path) -> None:
    layout(tmp_path, [("L1", "a", "nv"), ("L1", "b", "mel"), ("L2", "c", "nv")])
    (tmp_path / FOLDERS[0] / "c.jpg").write_bytes(b"GIF89a")
    told = {finding.where: finding.what for finding in read("ham10000", tmp_path).findings}
    assert "neither JPEG nor PNG" in told["c.jpg"]
    assert "two diagnoses" in told["L1"]


def test_the_digest_is_of_the_content_not_of_the_place_or_order(tmp_path: Path) -> None:
    index = read("ham10000", layout(tmp_path / "one", THREE))
    moved = (tmp_path / "one").rename(tmp_path / "two")
    table(moved / METADATA, COLUMNS, [(*row, "histo", "50", "male", "back") for row in reversed(THREE)])
    again = read("ham10000", moved)
    assert again.digest == index.digest
    assert [record.image_id for record in again.records] == [record.image_id for record in index.records]
    (moved / "SYNTHETIC.txt").touch()
    drawn = read("ham10000", moved).digest
    table(moved / METADATA, COLUMNS, [(*row, "histo", "51", "male", "back") for row in THREE])
    older = read("ham10000", moved).digest
    (moved / FOLDERS[0] / "a.jpg").write_bytes(JPEG + b"other")
    assert len({index.digest, drawn, older, read("ham10000", moved).digest}) == 4


def test_an_image_that_changed_since_is_not_used(tmp_path: Path) -> None:
    index = read("ham10000", layout(tmp_path, THREE))
    index.records[0].path.write_bytes(JPEG + b"z")
    with pytest.raises(DataDamaged, match="has changed since"):
        index.records[0].read_bytes()


def test_progress_ends_at_all_images(tmp_path: Path) -> None:
    said: list[tuple[int, int]] = []
    read("ham10000", layout(tmp_path, THREE), lambda done, total: said.append((done, total)))
    assert said[-1] == (3, 3)


@pytest.mark.parametrize(("format", "told"), [("dicom", "unknown format 'dicom'; known: ham10000"), ("folder", "fold")])
def test_an_unknown_format_or_folder_is_refused(tmp_path: Path, format: str, told: str) -> None:
    with pytest.raises(InvalidInput, match=told):
        read(format, tmp_path / "nothing")


@pytest.mark.real_data
def test_the_real_ham10000_is_read_whole(ham10000: Path) -> None:
    """Counts by class as published (Tschandl et al. 2018, table 2)."""
    index = read("ham10000", ham10000)
    assert Counter(index.classes[label] for label in index.labels) == {
        "akiec": 327, "bcc": 514, "bkl": 1099, "df": 115, "mel": 1113, "nv": 6705, "vasc": 142,
    }  # fmt: skip
    assert len({record.attributes["lesion_id"] for record in index.records}) == 7470
    assert len(set(index.groups)) == 7452
    assert not index.synthetic
