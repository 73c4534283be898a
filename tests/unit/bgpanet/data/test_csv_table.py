"""A folder with a table of its images."""

import csv
from pathlib import Path

import numpy as np
import pytest

from bgpanet.data.index import Index
from bgpanet.data.readers import read
from bgpanet.errors import InvalidInput
from bgpanet.evaluation.predictions import PredictionTable
from tests.support.images import image_of


def layout(
    folder: Path, header: str, *rows: str, name: str = "images.csv", files: str = "a.png b.png sub/c.png"
) -> Path:
    for file in files.split():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(image_of(file))
    (folder / name).write_text("\n".join([header, *rows]), encoding="utf-8")
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(InvalidInput) as caught:
        read("csv", folder)
    return str(caught.value)


def findings(index: Index) -> dict[str, str]:
    return {finding.where: finding.what for finding in index.findings}


def test_columns_without_a_meaning_are_attributes_and_an_empty_label_is_unknown(tmp_path: Path) -> None:
    layout(tmp_path, "image,label,lesion_id,sex,=x", "a.png,nv,L1,male,1", "b.png,,L1,,2", "sub/c.png,mel,L2,female,")
    index = read("csv", tmp_path)
    assert (index.classes, index.labels.tolist()) == (("mel", "nv"), [1, -1, 0])
    assert (index.groups.tolist(), index.group_unit) == (["L1", "L1", "L2"], "lesion")
    assert index.records[0].attributes == {"sex": "male", "=x": "1"}
    assert index.attribute_names == ("=x", "sex")
    assert index.records[2].read_bytes() == image_of("sub/c.png")


def test_the_only_table_of_a_folder_may_have_any_name_and_ids_of_its_own(tmp_path: Path) -> None:
    layout(tmp_path, "path,image_id", "a.png,one", "sub/c.png,two", name="t.csv")
    index = read("csv", tmp_path)
    assert ([record.image_id for record in index.records], index.classes) == (["one", "two"], ())
    assert index.findings == ()


@pytest.mark.parametrize(
    ("header", "rows", "groups", "unit", "told"),
    [
        ("image,lesion_id", ("a.png,L1", "b.png,L2"), ["L1", "L2"], "lesion", 0),
        ("image,patient_id", ("a.png,P1", "b.png,P1"), ["P1", "P1"], "patient", 0),
        ("image,lesion_id,patient_id", ("a.png,L1,P1", "b.png,L1,P2"), ["P1", "P1"], "patient", 1),
        ("image,group,lesion_id", ("a.png,G1,L1", "b.png,G2,L2"), ["G1", "G2"], "group", 0),
        ("image,group,patient_id,lesion_id", ("a.png,G2,P1,", "b.png,G1,P1,"), ["G1", "G1"], "group", 1),
        ("image", ("a.png", "b.png"), ["a", "b"], "image", 0),
    ],
)
def test_groups_are_of_the_widest_column_and_joined_by_the_others(
    tmp_path: Path, header: str, rows: tuple[str, ...], groups: list[str], unit: str, told: int
) -> None:
    index = read("csv", layout(tmp_path, header, *rows))
    assert (index.groups.tolist(), index.group_unit) == (groups, unit)
    joined = [finding.what for finding in index.findings if "several groups share" in finding.what]
    assert len(joined) == told


def test_a_lesion_with_two_diagnoses_is_told(tmp_path: Path) -> None:
    index = read("csv", layout(tmp_path, "image,label,lesion_id", "a.png,nv,L1", "b.png,mel,L1"))
    assert "two diagnoses" in findings(index)["L1"]


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "outside.png").write_bytes(image_of("outside"))
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "link.png").symlink_to(tmp_path / "outside.png")
    (folder / "up").symlink_to(tmp_path)
    rows = (
        "a.png,nv,G", "a.png,nv,G", "/etc/passwd,nv,G", "../outside.png,nv,G", "sub\\c.png,nv,G", "C:/a.png,nv,G",
        "link.png,nv,G", "up/outside.png,nv,G", "none.png,nv,G", "b.png,NV,", ",nv,G", ".,nv,G",
    )  # fmt: skip
    told = refusal(layout(folder, "image,label,group", *rows))
    for part in (
        "images.csv:3 (first images.csv:2), images.csv:7 (first images.csv:2), ",
        "images.csv:4, images.csv:5, images.csv:6, images.csv:7: a path must be relative, with / between folders and w",
        "images.csv:8, images.csv:9: a link leads out of the folder",
        "images.csv:10 (none.png), images.csv:12 (), images.csv:13 (.): there is no such file",
        "images.csv:11: group is empty or not printable",
        "NV and nv: classes are the same or differ in capitals alone",
        "images.csv:12, images.csv:13: an image's id (its file's name) must be",
    ):
        assert part in told


@pytest.mark.parametrize(
    ("header", "told"),
    [
        ("label,group", "images.csv: must have one of the columns image and path"),
        ("image,path", "images.csv: must have one of the columns image and path"),
        ("image,label,label", "has a column twice: 'label'"),
    ],
)
def test_a_table_of_other_columns_is_refused(tmp_path: Path, header: str, told: str) -> None:
    assert told in refusal(layout(tmp_path, header, ",".join("x" for _ in header.split(","))))


def test_a_folder_without_a_table_or_with_several_is_refused(tmp_path: Path) -> None:
    assert "has no table; name the one of the images images.csv" in refusal(tmp_path)
    layout(tmp_path, "image", "a.png", name="one.csv")
    layout(tmp_path, "image", "a.png", name="two.CSV")
    assert "has several tables (one.csv, two.CSV)" in refusal(tmp_path)


def test_a_label_that_no_page_could_show_is_refused(tmp_path: Path) -> None:
    assert r"'n\x1bv': a class must have a printable name" in refusal(layout(tmp_path, "image,label", "a.png,n\x1bv"))


def test_formulas_are_text_and_stand_in_no_table_of_ours_as_formulas(tmp_path: Path) -> None:
    formulas = ["=cmd|'/C calc'!A0", "+1", "-1", "@SUM(A1)"]
    files = [f"{n}.png" for n in range(4)]
    layout(
        tmp_path,
        "image,label,group",
        *(f"{file},{f},{f}" for file, f in zip(files, formulas, strict=True)),
        files=" ".join(files),
    )
    index = read("csv", tmp_path)
    assert set(index.classes) == set(formulas) == set(index.groups.tolist())
    table = PredictionTable.of(index, np.arange(4), np.full((4, 4), 0.25))
    table.write(tmp_path / "p.csv", tmp_path / "p.parquet")
    with (tmp_path / "p.csv").open(newline="", encoding="utf-8") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert f"'{formulas[0]}" in cells
    assert [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))] == []
