"""The reader of ISIC 2018, task 3, on small folders in the layout of its archives."""

import csv
from collections.abc import Mapping
from pathlib import Path

import pytest

from bgpanet.data.index import Index
from bgpanet.data.readers import read
from bgpanet.data.readers.ham10000 import CLASSES, DUPLICATES
from bgpanet.errors import InvalidInput
from tests.support.images import image_of

HEADER = ["image", "MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC"]  # in the order of the official file


def layout(folder: Path, labels: Mapping[str, str], part: str = "Training") -> Path:
    """A folder with an image and a one-hot row for each label."""
    images = folder / f"ISIC2018_Task3_{part}_Input"
    images.mkdir(parents=True)
    (images / "ATTRIBUTION.txt").touch()
    for image_id in labels:
        (images / f"{image_id}.jpg").write_bytes(image_of(image_id))
    rows = [[image, *("1.0" if name == label else "0.0" for name in HEADER[1:])] for image, label in labels.items()]
    table(folder / f"ISIC2018_Task3_{part}_GroundTruth.csv", [HEADER, *rows])
    return folder


def table(path: Path, rows: list[list[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def groupings(folder: Path, lesions: Mapping[str, str]) -> None:
    rows = [[image, lesion, "histopathology"] for image, lesion in lesions.items()]
    table(
        folder / "ISIC2018_Task3_Training_LesionGroupings.csv",
        [["image", "lesion_id", "diagnosis_confirm_type"], *rows],
    )


def findings(index: Index) -> dict[str, str]:
    return {finding.where: finding.what for finding in index.findings}


FOUR = {"a": "MEL", "b": "MEL", "c": "NV", "d": "AKIEC"}


def test_labels_are_those_of_ham10000_and_images_are_grouped_by_lesion(tmp_path: Path) -> None:
    groupings(layout(tmp_path, FOUR), {"a": "L1", "b": "L1", "c": "L2", "d": "L3"})
    index = read("isic2018", tmp_path)
    assert index.classes == CLASSES
    assert [CLASSES[label] for label in index.labels] == ["mel", "mel", "nv", "akiec"]
    assert (index.groups.tolist(), index.group_unit) == (["L1", "L1", "L2", "L3"], "lesion")
    assert index.records[0].attributes == {
        "part": "training", "lesion_id": "L1", "diagnosis_confirm_type": "histopathology",
    }  # fmt: skip
    assert index.licence == "CC BY-NC 4.0"
    assert "1902.03368" in index.citation
    assert "sdata.2018.161" in index.citation


def test_without_the_table_of_lesions_each_image_is_a_group_and_that_is_told(tmp_path: Path) -> None:
    index = read("isic2018", layout(tmp_path, FOUR))
    assert (index.groups.tolist(), index.group_unit) == (["a", "b", "c", "d"], "image")
    assert "a split may leak" in findings(index)[tmp_path.name]


def test_an_image_that_the_table_of_lesions_leaves_out_is_a_group_of_its_own(tmp_path: Path) -> None:
    groupings(layout(tmp_path, FOUR), {"a": "L1", "b": "L1", "c": "L2"})
    index = read("isic2018", tmp_path)
    assert index.groups.tolist() == ["L1", "L1", "L2", "d"]
    assert "its lesion is not told" in findings(index)["ISIC2018_Task3_Training_GroundTruth.csv:5 (d)"]


def test_the_ground_truth_may_lie_in_the_folder_that_its_archive_makes(tmp_path: Path) -> None:
    layout(tmp_path, FOUR)
    table_file = tmp_path / "ISIC2018_Task3_Training_GroundTruth.csv"
    (tmp_path / table_file.stem).mkdir()
    table_file.rename(tmp_path / table_file.stem / table_file.name)
    assert len(read("isic2018", tmp_path).records) == 4


def test_several_parts_are_read_together_and_told_apart(tmp_path: Path) -> None:
    layout(tmp_path, FOUR)
    layout(tmp_path, {"t": "DF"}, part="Test")
    index = read("isic2018", tmp_path)
    assert [record.attributes["part"] for record in index.records] == ["training"] * 4 + ["test"]
    assert "one data set here" in findings(index)["Training, Test"]


def test_known_duplicates_and_a_lesion_of_two_diagnoses_are_as_with_ham10000(tmp_path: Path) -> None:
    groupings(layout(tmp_path, FOUR), {"a": "L1", "b": "L2", "c": "L2", "d": "L3"})
    table(tmp_path / DUPLICATES, [["similarity", "from_img", "to_img"], ["0.9", "a.jpg", "d.jpg"]])
    index = read("isic2018", tmp_path)
    assert index.groups.tolist() == ["L1", "L2", "L2", "L1"]
    assert "two diagnoses" in findings(index)["L2"]


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    layout(tmp_path, {**FOUR, "e": "WART"})
    path = tmp_path / "ISIC2018_Task3_Training_GroundTruth.csv"
    with path.open("a", encoding="utf-8") as file:
        file.write("a,1,0,0,0,0,0,0\nf,1,0,0,0,0,0,0\n../g,1,0,0,0,0,0,0\nd.,1,1,0,0,0,0,0\nh,0.5,0.5,0,0,0,0,0\n")
    with pytest.raises(InvalidInput) as caught:
        read("isic2018", tmp_path)
    told = str(caught.value)
    name = path.name
    for part in (
        f"{name}:6, {name}:10, {name}:11: exactly one class must be 1 and every other 0",
        f"{name}:7 (first {name}:2): another image has the same id",
        f"{name}:8 (f.jpg), {name}:10 (d..jpg), {name}:11 (h.jpg): there is no such image in ISIC2018_Task3_Training",
        f"{name}:9: an image's id (its file's name) must be",
    ):
        assert part in told


@pytest.mark.parametrize("columns", [[], ["image", "MEL", "NV"]])
def test_a_folder_without_ground_truth_is_refused(tmp_path: Path, columns: list[str]) -> None:
    if columns:
        table(tmp_path / "ISIC2018_Task3_Training_GroundTruth.csv", [columns])
    with pytest.raises(InvalidInput, match=r"has no ISIC2018_Task3_Training_GroundTruth.csv|has no column AKIEC, BCC"):
        read("isic2018", tmp_path)
