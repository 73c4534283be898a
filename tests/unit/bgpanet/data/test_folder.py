import os
from pathlib import Path

import pytest

from bgpanet.data.index import Index
from bgpanet.data.readers import read
from bgpanet.errors import InvalidInput

PNG = b"\x89PNG\r\n\x1a\n"


def put(path: Path, content: bytes = b"") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(PNG + (content or path.name.encode()))


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
    put(tmp_path / "nv" / "x.png", b"same")
    put(tmp_path / "mel" / "y.png", b"same")
    put(tmp_path / "mel" / "z.png")
    (tmp_path / "empty").mkdir()
    index = read("folder", tmp_path)
    assert (index.classes, index.labels.tolist()) == (("mel", "nv"), [1, 0, 0])
    assert groups(index) == {"x": "x", "y": "x", "z": "z"}
    assert [finding.where for finding in index.findings] == ["x = y"]


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
    assert "same name" in told["nv/a.png"]
    assert "must be letters" in told["mel/b c.png"]
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
