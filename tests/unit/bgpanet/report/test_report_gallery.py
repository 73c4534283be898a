"""Which images a report shows, and their file."""

import base64
import io
import json
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bgpanet.errors import InvalidInput
from bgpanet.evaluation.predictions import PredictionTable
from bgpanet.models import build_model
from bgpanet.report.gallery import GALLERY, WORST, answers, chosen, examples, read_gallery, worst, write_gallery
from bgpanet.report.pictures import SIDE, draw
from tests.unit.bgpanet.report.conftest import CLASSES, pictures, table


def test_the_worst_errors_are_the_wrong_answers_given_with_most_confidence() -> None:
    found = [answer for answer in answers(table(CLASSES, 300)) if answer is not None]
    shown = worst(found)
    assert len(shown) == WORST
    assert not any(answer.is_right for answer in shown)
    assert [a.probability for a in shown] == sorted((a.probability for a in found if not a.is_right), reverse=True)[:12]


def test_examples_are_one_right_and_one_wrong_of_each_class() -> None:
    found = [answer for answer in answers(table(CLASSES)) if answer is not None and answer.truth != "bkl"]
    rows = examples([answer for answer in found if answer.truth != "nv" or answer.is_right], CLASSES)
    assert [(name, right is not None, wrong is not None) for name, right, wrong in rows] == [
        ("mel", True, True), ("nv", True, False), ("bkl", False, False),
    ]  # fmt: skip
    assert rows[0][1] == max((a for a in found if a.truth == "mel" and a.is_right), key=lambda a: a.probability)


def test_what_is_chosen_is_all_that_a_page_shows_and_no_more() -> None:
    found = table(CLASSES, 300)
    every = answers(found)
    known = [answer for answer in every if answer is not None]
    of_few = [answer for row in chosen(found) if (answer := every[row]) is not None]
    assert worst(of_few) == worst(known)
    assert examples(of_few, CLASSES) == examples(known, CLASSES)
    assert len(of_few) <= WORST + 2 * len(CLASSES)


def test_images_without_a_known_truth_or_an_answer_are_not_shown() -> None:
    p = np.array([[0.9, 0.1], [0.8, 0.2], [np.nan, np.nan]])
    found = PredictionTable(["a", "b"], ["1", "2", "3"], ["", "", ""], [None] * 3, ["b", "", "a"], ["", "", "cut"], p)
    assert chosen(found) == [0]


def test_a_gallery_comes_back_as_it_was_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    assert read_gallery(tmp_path) == []
    made = pictures(table(CLASSES))
    write_gallery(made, tmp_path)
    assert read_gallery(tmp_path) == made
    for text in ("{", "[]", '{"pictures": [{"image_id": 1}]}', json.dumps({"pictures": 3})):
        (tmp_path / GALLERY).write_text(text)
        with pytest.raises(InvalidInput, match="is no gallery"):
            read_gallery(tmp_path)


def test_pictures_are_small_hold_nothing_but_pixels_and_leave_the_net_as_it_was() -> None:
    torch.manual_seed(0)
    model = build_model("bgpanet_micro", 3)
    before = deepcopy(model.state_dict())
    found = table(CLASSES, 20)
    pixels = np.random.default_rng(0).integers(0, 256, (30, 1, 1, 3), dtype=np.uint8).repeat(64, 1).repeat(64, 2)
    pixels[:, 32:, 32:] //= 2
    positions = np.arange(5, 25)
    made = draw(model, "bgpanet_micro", pixels, positions, found)
    assert [picture.image_id for picture in made] == [found.image_ids[row] for row in chosen(found)]
    for row, picture in zip(chosen(found), made, strict=True):
        content = base64.b64decode(picture.image)
        image = Image.open(io.BytesIO(content))
        assert (image.format, image.size, dict(image.getexif())) == ("JPEG", (64, 64), {})
        corner = np.asarray(image, dtype=float)[:4, :4]
        np.testing.assert_allclose(corner, pixels[positions[row]][:4, :4], atol=8)
        assert picture.overlay is not None
        assert Image.open(io.BytesIO(base64.b64decode(picture.overlay))).size == (64, 64)
        assert len(content) < SIDE**2
    assert any(picture.overlay != picture.image for picture in made)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(weight.grad is None and weight.requires_grad for weight in model.parameters())
