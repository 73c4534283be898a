"""The reader of ISIC 2020: on its real tables, and on small folders with drawn images."""

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from bgpanet.data.readers import isic2020, read
from bgpanet.data.readers.isic2020 import DUPLICATES, TABLES
from bgpanet.errors import InvalidInput
from tests.support.images import image_of

HEADER = (
    "image_name", "patient_id", "sex", "age_approx", "anatom_site_general_challenge", "diagnosis", "benign_malignant",
    "target",
)  # fmt: skip


def layout(folder: Path, rows: list[tuple[str, str, str]], duplicates: list[tuple[str, str]] | None = None) -> Path:
    """A folder with (image, patient, benign or malignant) rows and a file for each image."""
    images = folder / "ISIC_2020_Training_JPEG" / "train"
    images.mkdir(parents=True)
    for image_id, _, _ in rows:
        (images / f"{image_id}.jpg").write_bytes(image_of(image_id))
    table(
        folder / TABLES[0],
        HEADER,
        [
            (image, patient, "male", "45", "torso", "nevus", label, str(int(label == "malignant")))
            for image, patient, label in rows
        ],
    )
    if duplicates is not None:
        table(folder / DUPLICATES, ("image_name_1", "image_name_2"), duplicates)
    return folder


def table(path: Path, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])


FOUR = [("a", "P1", "benign"), ("b", "P1", "malignant"), ("c", "P2", "benign"), ("d", "P3", "benign")]


def test_images_are_grouped_by_patient(tmp_path: Path) -> None:
    index = read("isic2020", layout(tmp_path, FOUR))
    assert (index.classes, index.labels.tolist()) == (("benign", "malignant"), [0, 1, 0, 0])
    assert (index.groups.tolist(), index.group_unit) == (["P1", "P1", "P2", "P3"], "patient")
    assert index.records[0].attributes == {
        "patient_id": "P1", "sex": "male", "age": "45", "localization": "torso", "diagnosis": "nevus",
    }  # fmt: skip
    assert (index.licence, "10.34970/2020-ds01" in index.citation) == ("CC BY-NC 4.0", True)
    assert any("is missing: images that it lists" in finding.what for finding in index.findings)


def test_of_listed_duplicates_the_first_name_stays_whatever_the_order_of_the_table(tmp_path: Path) -> None:
    index = read("isic2020", layout(tmp_path, FOUR, [("d", "c"), ("a.jpg", "c.jpg")]))
    assert [record.image_id for record in index.records] == ["a", "b"]
    excluded = [(finding.where, finding.what) for finding in index.findings if finding.level == "excluded"]
    assert excluded == [("c, d", f"a duplicate by {DUPLICATES}; the first name of the same image stays")]


def test_patients_who_share_an_image_are_one_group(tmp_path: Path) -> None:
    rows = [*FOUR, ("e", "P3", "benign")]
    index = read("isic2020", layout(tmp_path, rows, [("c", "d")]))
    assert index.groups.tolist() == ["P1", "P1", "P2", "P2"]


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    layout(
        tmp_path, [*FOUR, ("a", "P9", "benign"), ("e", "", "benign"), ("f", "P4", "unsure")], [("b", "c"), ("a", "z")]
    )
    (tmp_path / "ISIC_2020_Training_JPEG" / "train" / "d.jpg").unlink()
    path = tmp_path / TABLES[0]
    path.write_text(path.read_text().replace("d,P3,male,45,torso,nevus,benign,0", "d,P3,male,45,torso,nevus,benign,1"))
    with pytest.raises(InvalidInput) as caught:
        read("isic2020", tmp_path)
    told = str(caught.value)
    for part in (
        "b: duplicates of one image have two diagnoses",
        f"{DUPLICATES}:3: the image is not in the data set's table",
        f"{TABLES[0]}:5 (d.jpg): there is no such image in ISIC_2020_Training_JPEG/train or train",
        f"{TABLES[0]}:5: target and benign_malignant contradict each other",
        f"{TABLES[0]}:6 (first {TABLES[0]}:2): another image has the same id",
        f"{TABLES[0]}:7: patient_id is empty",
        f"{TABLES[0]}:8 ('unsure'): unknown label; known are benign, malignant",
    ):
        assert part in told


def test_a_folder_without_the_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"ISIC_2020_Training_GroundTruth.csv: is missing in"):
        read("isic2020", tmp_path)


@pytest.mark.real_data
def test_the_real_tables_have_the_published_counts_and_lose_the_425_duplicates(isic2020_tables: Path) -> None:
    draft = isic2020.draft(isic2020_tables)
    assert Counter(row.label for row in draft.rows) == {"benign": 32_542 - 422, "malignant": 584 - 3}
    assert len({row.group for row in draft.rows}) == 2_056
    assert len(draft.rows) == 33_126 - 425
    (excluded,) = draft.excluded.findings("excluded")
    assert "and 420 more" in excluded.where
    assert {problem.what for problem in draft.refused.problems()} == {
        "there is no such image in ISIC_2020_Training_JPEG/train or train"  # the tables alone are here
    }
