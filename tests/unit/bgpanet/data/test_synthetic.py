"""The drawn lesions: what the demo needs of them, and that nobody takes them for medical data."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from bgpanet.data import synthetic
from bgpanet.data.index import Index
from bgpanet.data.pixels import decode, open_pixels
from bgpanet.data.readers import read


def test_the_default_set_has_the_imbalance_and_the_lesions_of_the_demo(tmp_path: Path) -> None:
    synthetic.draw(tmp_path)
    index = read("ham10000", tmp_path)
    images = Counter(index.classes[label] for label in index.labels)
    assert images["nv"] == 60 * images["df"]
    assert len(images) == 7
    views = Counter(index.groups.tolist())
    assert max(views.values()) == 3
    assert sum(count > 1 for count in views.values()) > 100


def test_it_says_that_it_is_drawn(index: Index, lesions: Path) -> None:
    assert index.synthetic
    assert "no medical data" in (lesions / "SYNTHETIC.txt").read_text()
    assert [finding.where for finding in index.findings] == ["akiec (4), bcc (4), df (4), vasc (4)"]  # too few to fold


def test_the_same_seed_draws_the_same_pixels(index: Index, tmp_path: Path) -> None:
    synthetic.draw(tmp_path / "again", lesions=40, seed=1)
    synthetic.draw(tmp_path / "other", lesions=40, seed=2)
    assert read("ham10000", tmp_path / "again").digest == index.digest
    assert read("ham10000", tmp_path / "other").digest != index.digest


def test_views_of_a_lesion_resemble_each_other_more_than_lesions_of_its_class_do(tmp_path: Path) -> None:
    """Else nothing could leak, and an honest split would be worth nothing."""
    synthetic.draw(tmp_path / "lesions", lesions=200)
    index = read("ham10000", tmp_path / "lesions")
    pixels = open_pixels(index, 16, tmp_path).pixels.astype(float)
    skin = pixels[:, [0, 0, -1, -1], [0, -1, 0, -1]].mean(axis=1)
    colours = pixels[:, 5:11, 5:11].mean(axis=(1, 2)) / skin  # so that the light does not matter
    of_group: defaultdict[str, list[int]] = defaultdict(list)
    for position, record in enumerate(index.records):
        of_group[record.group].append(position)
    of_class: defaultdict[int, list[int]] = defaultdict(list)
    for found in of_group.values():
        of_class[int(index.labels[found[0]])].append(found[0])

    def distance(pairs: Iterable[tuple[int, ...]]) -> float:
        return float(np.mean([np.abs(colours[a] - colours[b]).sum() for a, b in pairs]))

    same = distance((found[0], found[1]) for found in of_group.values() if len(found) > 1)
    other = distance(pair for firsts in of_class.values() for pair in pairwise(firsts))
    assert same < 0.6 * other


def test_unlabelled_images_come_with_broken_ones(tmp_path: Path) -> None:
    synthetic.draw_unlabelled(tmp_path, count=5, seed=0, broken=2)
    index = read("folder", tmp_path)
    assert (len(index.records), index.synthetic) == (7, True)
    for record in index.records[:5]:
        assert decode(record.read_bytes(), 8).std() > 5
    for record in index.records[5:]:
        with pytest.raises(ValueError, match="truncated"):
            decode(record.read_bytes(), 8)
