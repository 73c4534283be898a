"""The pictures of the documentation: those that are named are there, small, and told of by words."""

import re
from pathlib import Path

from PIL import Image

DOCS = Path(__file__).parents[4] / "docs"
MOST_BYTES, MOST_BYTES_IN_ALL = 150_000, 3_000_000


def test_every_picture_that_the_documentation_shows_is_there_and_has_words() -> None:
    shown = re.findall(r"!\[(.*?)\]\((.+?)\)", (DOCS / "dashboard.md").read_text(encoding="utf-8"))
    assert len(shown) > 10
    assert [place for words, place in shown if not words or not (DOCS / place).is_file()] == []


def test_pictures_are_small() -> None:
    sizes = {file.name: file.stat().st_size for file in (DOCS / "screenshots").iterdir()}
    assert {name: size for name, size in sizes.items() if size > MOST_BYTES} == {}
    assert sum(sizes.values()) <= MOST_BYTES_IN_ALL


def test_each_picture_is_as_wide_as_the_screen_that_it_is_named_for() -> None:
    for file in (DOCS / "screenshots").iterdir():
        with Image.open(file) as picture:
            assert picture.width == (390 if file.stem.endswith("-phone") else 1280), file.name
