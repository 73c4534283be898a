import os
from pathlib import Path

import pytest

from bgpanet.data.index import Index
from bgpanet.data.readers import read
from bgpanet.errors import InvalidInput
from tests.support.images import image_of


def put(path: Path, content: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(image_of(content or path.name))


def groups(index: Index) -> dict[str, str]:
    return {record.image_id: record.group for record in index.records}


def test_images_in_the_folder_itself_have_no_labels(tmp_path: Path) -> None:
    put(tmp_path / "b.png")
    put(tmp_path / "a.JPG")
    put(tmp_path / ".hidden.png")
    put(tmp_path / "notes.txt")
    index = read("folder", tmp_path)
    assert (index.classes, index.labels.tolist(), groups(index)) == ((), [-1, -1], {"a": "a", "b": "b"})


def test_a_sub_folder_is_a_class_and_identical_images_are_one_group(tmp_path: Path) -> None:
    put(tmp_path / "nv" / "x.png", "same")
    put(tmp_path / "mel" / "y.png", "same")
    put(tmp_path / "mel" / "z.png")
    put(tmp_path / "mel" / "scan.tif")
    (tmp_path / "empty").mkdir()
    index = read("folder", tmp_path)
    assert (index.classes, index.labels.tolist()) == (("mel", "nv"), [1, 0, 0])
    assert groups(index) == {"x": "x", "y": "x", "z": "z"}
    assert {finding.where: finding.what.split(";")[0] for finding in index.findings} == {
        "empty": "the folder has no images and is no class",
        "mel/scan.tif": "the image is of a kind that this format does not read, and is left out",
        "x = y": "images are byte-identical",
        tmp_path.name: "nothing tells which images show the same lesion: each is its own group, and a split may leak",
        "mel (2), nv (0)": "a class has fewer than 5 groups (images), the usual number of folds",
    }


def test_images_deeper_than_a_class_are_refused_and_not_left_out_silently(tmp_path: Path) -> None:
    put(tmp_path / "nv" / "a.png")
    put(tmp_path / "nv" / "more" / "b.png")
    put(tmp_path / "set" / "train" / "c.png")
    with pytest.raises(InvalidInput, match=r"nv/more/b.png, set/train/c.png: lies deeper than in a class's folder"):
        read("folder", tmp_path)


def test_classes_that_differ_in_capitals_alone_are_refused(tmp_path: Path) -> None:
    put(tmp_path / "Nevus" / "a.png")
    put(tmp_path / "nevus" / "b.png")
    with pytest.raises(InvalidInput, match="Nevus and nevus: classes are the same or differ in capitals alone"):
        read("folder", tmp_path)


def test_an_empty_file_is_told_and_does_not_end_a_prediction(tmp_path: Path) -> None:
    put(tmp_path / "a.png")
    (tmp_path / "b.png").touch()
    index = read("folder", tmp_path)
    assert [(finding.level, finding.where) for finding in index.findings] == [("warned", "b.png")]


def test_a_file_beside_the_data_tells_its_licence(tmp_path: Path) -> None:
    put(tmp_path / "a.png")
    (tmp_path / "dataset.yaml").write_text("licence: CC BY 4.0\ncitation: Doe 2024\nsynthetic: true\n")
    index = read("folder", tmp_path)
    assert (index.licence, index.citation, index.synthetic) == ("CC BY 4.0", "Doe 2024", True)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"licence: [a, b]", "dataset.yaml: licence: Input should be a valid string"),
        (
            b"license: MIT\ncitation: 3",
            "citation: Input should be a valid string; dataset.yaml: license: unknown field",
        ),
        (b"licence: 'two\n\n  lines'", "licence: String should match"),
        (b"classes: [a]", "dataset.yaml: classes: is for npz alone"),
        (b"licence: \xff", "is not YAML in UTF-8"),
        (b"a: [", "is not YAML in UTF-8"),
        (b"just text", "valid dictionary"),
        (b"# " + b"x" * 70_000, "larger than 64 KiB"),
        (b"!!python/object/apply:os.system [ls]", "is not YAML in UTF-8"),
    ],
)
def test_such_a_file_that_can_not_be_used_is_refused(tmp_path: Path, content: bytes, told: str) -> None:
    put(tmp_path / "nv" / "a.png")
    (tmp_path / "dataset.yaml").write_bytes(content)
    with pytest.raises(InvalidInput, match=told):
        read("folder", tmp_path)


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    put(tmp_path / "outside.png")
    folder = tmp_path / "data"
    put(folder / "nv" / "a.png")
    put(folder / "mel" / "a.jpg")
    put(folder / "mel" / "b c.png")
    (folder / "mel" / "link.png").symlink_to(tmp_path / "outside.png")
    (folder / "nv" / "gone.png").symlink_to(folder / "nowhere")
    with pytest.raises(InvalidInput) as caught:
        read("folder", folder)
    told = {problem.where: problem.what for problem in caught.value.problems}
    assert "same id" in told["nv/a.png (first mel/a.jpg)"]
    assert "must be at most 100 letters" in told["mel/b c.png"]
    assert "leads out" in told["mel/link.png"]
    assert "can't be read" in told["nv/gone.png"]


def test_a_class_folder_whose_name_is_no_text_is_refused(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/\xe9clair"
    os.mkdir(folder)
    put(Path(os.fsdecode(folder)) / "a.png")
    with pytest.raises(InvalidInput, match="printable name in UTF-8"):
        read("folder", tmp_path)


def test_a_path_that_can_not_be_looked_at_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="can't be read: File name too long"):
        read("folder", tmp_path / ("x" * 4000))


@pytest.mark.parametrize("files", [[], ["a.png", "nv/b.png"], ["text.txt"]])
def test_a_folder_that_can_mean_nothing_or_two_things_is_refused(tmp_path: Path, files: list[str]) -> None:
    for file in files:
        put(tmp_path / file)
    with pytest.raises(InvalidInput, match=r"has no images|both directly and in sub-folders"):
        read("folder", tmp_path)
