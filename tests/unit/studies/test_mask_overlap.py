"""The study of masks: every image with the net that did not learn from it, and no other."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bgpanet.bundles import ModelCard, load_bundle, save_bundle
from bgpanet.data.augmentation import normalise
from bgpanet.data.pixels import decode
from bgpanet.errors import InvalidInput
from bgpanet.evaluation.predictions import PredictionTable
from bgpanet.explanation.cam import grad_cam
from bgpanet.explanation.masks import overlap
from bgpanet.explanation.overlay import resized
from bgpanet.models import build_model
from bgpanet.specs import ModelSpec
from studies.mask_overlap import measure, read_folds, report

CLASSES = ("mel", "nv")


def bundle(folder: Path, seed: int, image_ids: list[str]) -> Path:
    torch.manual_seed(seed)
    model = build_model("bgpanet_micro", 2)
    spec = ModelSpec(name="bgpanet_micro")
    card = ModelCard(
        model=spec, classes=CLASSES, image_size=64, dataset_digest="0", split_digest="0", synthetic=True, kept={}
    )
    save_bundle(folder, card, model.state_dict())
    n = len(image_ids)
    table = PredictionTable(
        classes=list(CLASSES),
        image_ids=image_ids,
        groups=[f"lesion of {image_id}" for image_id in image_ids],
        folds=[0] * n,
        truths=["mel"] * n,
        errors=[""] * n,
        probabilities=np.full((n, 2), 0.5),
    )
    table.write(folder / "predictions.csv", folder / "predictions.parquet")
    return folder


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    """Six images, of which `f` has no mask."""
    rng = np.random.default_rng(0)
    for name in ("masks", "images"):
        (tmp_path / name).mkdir()
    for image_id in "abcdef":
        coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        coarse.resize((80, 60)).save(tmp_path / "images" / f"{image_id}.jpg")
        mask = np.zeros((60, 80), dtype=np.uint8)
        mask[10:40, 20 : 50 + rng.integers(20)] = 255
        if image_id != "f":
            Image.fromarray(mask).save(tmp_path / "masks" / f"{image_id}_expert.png")
    return tmp_path


def test_an_image_counts_with_the_net_that_tested_it_alone(drawn: Path) -> None:
    first, second = bundle(drawn / "0", 1, ["b", "a", "f"]), bundle(drawn / "1", 2, ["d"])
    folds = read_folds([first, second], set("abcde"))
    assert [(fold.image_ids, fold.groups) for fold in folds] == [
        (["b", "a"], ["lesion of b", "lesion of a"]),
        (["d"], ["lesion of d"]),
    ]
    found = measure(folds[1], drawn / "masks", drawn / "images", batch=2)
    model, _ = load_bundle(second)
    image = normalise(torch.from_numpy(np.stack([decode((drawn / "images" / "d.jpg").read_bytes(), 64)])))
    with Image.open(drawn / "masks" / "d_expert.png") as mask:
        inside = np.asarray(mask) > 0
    expected = overlap(resized(grad_cam(model, "bgpanet_micro", image)[0], 60, 80), inside)
    assert found["Grad-CAM", "trained"] == [expected]
    assert found["Grad-CAM", "untrained"] != [expected]


def test_the_report_tells_how_many_images_count_and_of_what(drawn: Path) -> None:
    bundles = [bundle(drawn / "0", 1, ["b", "a", "f"]), bundle(drawn / "1", 2, ["d"])]
    told = report(bundles, drawn / "masks", drawn / "images")
    assert told.startswith("3 of 5 masked images, of 3 lesions, each with the net of the fold\n")
    rows = [line.split(" | ") for line in told.splitlines() if line.startswith("|")]
    # Grad-CAM of the last layer and three stages, M_s and what is received of four, four rows each.
    assert len(rows) == 2 + 12 * 4 + 1
    assert {len(row) for row in rows[2:]} == {5}
    assert rows[-1][0] == "| centred disc"


def test_nets_that_tested_the_same_image_are_refused(drawn: Path) -> None:
    bundles = [bundle(drawn / "0", 1, ["a", "b"]), bundle(drawn / "1", 2, ["b"])]
    with pytest.raises(InvalidInput, match="tests b too"):
        read_folds(bundles, set("abcde"))


def test_nets_that_tested_no_masked_image_are_refused(drawn: Path) -> None:
    with pytest.raises(InvalidInput, match="tested 0 of 5 masked images"):
        report([bundle(drawn / "0", 1, ["f", "other"])], drawn / "masks", drawn / "images")
