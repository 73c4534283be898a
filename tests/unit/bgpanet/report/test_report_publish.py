"""Files for people, which may fail without harm."""

import json
from pathlib import Path

import pytest

from bgpanet.report import publish
from bgpanet.report.gallery import GALLERY, read_gallery
from bgpanet.report.pages import Material
from bgpanet.report.publish import MODEL_CARD, PAGE, pictures_of_folds, publish_run


def test_a_training_leaves_its_page_its_card_and_its_pictures(training: Material, tmp_path: Path) -> None:
    warnings: list[str] = []
    made = publish_run(training, tmp_path, warnings.append)
    assert sorted(path.name for path in made) == sorted([GALLERY, MODEL_CARD, PAGE])
    assert (tmp_path / PAGE).read_text().rstrip().endswith("</html>")
    assert read_gallery(tmp_path) == list(training.pictures)
    assert warnings == []


def test_a_cross_validation_leaves_no_pictures_of_its_own(crossed: Material, tmp_path: Path) -> None:
    made = publish_run(crossed, tmp_path, lambda message: None)
    assert sorted(path.name for path in made) == [MODEL_CARD, PAGE]


def test_a_page_that_can_not_be_made_is_a_warning(
    training: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(material: Material) -> None:
        raise MemoryError("none left")

    monkeypatch.setattr(publish, "run_page", broken)
    warnings: list[str] = []
    made = publish_run(training, tmp_path, warnings.append)
    assert sorted(path.name for path in made) == [GALLERY, MODEL_CARD]
    assert warnings == ["report.html was not made: MemoryError: none left"]


def test_a_disk_that_can_not_be_written_to_is_an_error(training: Material, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        publish_run(training, tmp_path / "nowhere", lambda message: None)


def test_a_fold_with_a_damaged_gallery_adds_no_pictures(training: Material, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("whole", "damaged", "old")]
    for folder in folders:
        folder.mkdir()
    publish_run(training, folders[0], lambda message: None)
    (folders[1] / GALLERY).write_text(json.dumps({"version": 1}))
    warnings: list[str] = []
    assert pictures_of_folds(folders, warnings.append) == list(training.pictures)
    assert len(warnings) == 1
    assert "is no gallery" in warnings[0]
