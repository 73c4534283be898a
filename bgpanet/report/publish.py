"""Writes what a person reads of a run: `report.html`, `model_card.md` and what they need, before `report.json`.

`report.json` stands last, since it says that the run is done; but no page may cost a finished training. So whatever
fails in making a page or its pictures (a figure, the template, the device's memory) is a warning in the log, on the
page where there is one, and never an error: figures, predictions and weights are written all the same. Only a disk that
cannot be written to is an error, as it is for `report.json` itself; the run is then tried again and ends with the same.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from matplotlib.figure import Figure

from bgpanet.report import forest
from bgpanet.report.drawing import png_file, style, svg_file
from bgpanet.report.gallery import GALLERY, Picture, read_gallery, write_gallery
from bgpanet.report.pages import Material, Page, model_card, run_page, study_page

PAGE, MODEL_CARD = "report.html", "model_card.md"
FILES = (GALLERY, PAGE, MODEL_CARD)
Warn = Callable[[str], None]
T = TypeVar("T")


def publish_run(material: Material, folder: Path, warn: Warn) -> list[Path]:
    """Writes the gallery of a training, and page and card of it or a cross-validation. Returns the files."""
    made: list[Path] = []
    if not material.folds:
        made.append(write_gallery(material.pictures, folder))
    page = attempt(lambda: run_page(material), f"{PAGE} was not made", warn)
    if page is not None:
        made.append(_write_page(page, folder, warn))
    card = attempt(lambda: model_card(material), f"{MODEL_CARD} was not made", warn)
    if card is not None:
        made.append(_write(folder / MODEL_CARD, card.encode()))
    return made


def publish_study(report: Mapping[str, Any], table: Sequence[Sequence[str]], folder: Path, warn: Warn) -> list[Path]:
    """Writes a study's page and its figures as files. Returns the files."""
    made: list[Path] = []
    drawings: dict[str, Callable[[Mapping[str, Any]], Figure]] = {"variants": forest.variants}
    if report["tests"]:
        drawings["differences"] = forest.differences
    for name, draw in drawings.items():
        for kind, to_bytes in {"svg": svg_file, "png": png_file}.items():
            content = attempt(lambda: _drawn(draw, report, to_bytes), f"{name}.{kind} was not drawn", warn)  # noqa: B023
            if content is not None:
                made.append(_write(folder / f"{name}.{kind}", content))
    page = attempt(lambda: study_page(report, table), f"{PAGE} was not made", warn)
    if page is not None:
        made.append(_write_page(page, folder, warn))
    return made


def pictures_of_folds(folders: Sequence[Path], warn: Warn) -> list[Picture]:
    """The pictures of all folds; a fold without a gallery, or with a damaged one, adds none."""
    found = [attempt(lambda f=folder: read_gallery(f), "a fold's pictures are left out", warn) for folder in folders]  # type: ignore[misc]
    return [picture for pictures in found for picture in pictures or ()]


def attempt(make: Callable[[], T], what: str, warn: Warn) -> T | None:
    """What `make` returns; None, and a warning, where it fails in whatever way."""
    try:
        return make()
    except Exception as error:
        warn(f"{what}: {type(error).__name__}: {error}")
        return None


def _drawn(
    draw: Callable[[Mapping[str, Any]], Figure], report: Mapping[str, Any], to_bytes: Callable[[Figure], bytes]
) -> bytes:
    with style():
        return to_bytes(draw(report))


def _write_page(page: Page, folder: Path, warn: Warn) -> Path:
    for problem in page.problems:
        warn(f"a figure of {PAGE} was not drawn: {problem}")
    return _write(folder / PAGE, page.html.encode())


def _write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path
