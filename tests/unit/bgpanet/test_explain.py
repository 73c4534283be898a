"""Explaining a trained model, from the spec to the pictures, on drawn lesions."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bgpanet.bundles import ModelCard, load_bundle, save_bundle
from bgpanet.data.augmentation import normalise
from bgpanet.data.index import Index
from bgpanet.data.pixels import decode, open_pixels
from bgpanet.errors import Interrupted, InvalidInput
from bgpanet.events import ArtifactWritten, Event, Result
from bgpanet.experiment import Workplace
from bgpanet.explain import explain
from bgpanet.explanation.cam import grad_cam
from bgpanet.explanation.overlay import overlay
from bgpanet.explanation.panel import CAPTION, GAP, TILE
from bgpanet.models import build_model
from bgpanet.specs import ModelSpec, parse_spec
from bgpanet.text import figures_line

CLASSES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def bundle(folder: Path, name: str = "bgpanet_micro", **options: Any) -> Path:
    """A model of random weights whose blocks fuse unevenly."""
    torch.manual_seed(5)
    spec = ModelSpec(name=name, **options)
    model = build_model(name, len(CLASSES), **spec.options)
    with torch.no_grad():
        for key, value in model.named_parameters():
            if key.endswith("mix_logits"):
                value.copy_(torch.arange(len(value)).float())
    card = ModelCard(
        model=spec, classes=CLASSES, image_size=64, dataset_digest="0", split_digest="0", synthetic=True, kept={}
    )
    save_bundle(folder, card, model.state_dict())
    return folder


def picture_in(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


class Said:
    """Runs and keeps what is said."""

    def __init__(self, folder: Path, cache: Path, stopped: bool = False) -> None:
        self.output, self.events = folder / "out", list[Event]()
        self.place = Workplace(self.output, cache, self.events.append, lambda: stopped, threads=1)

    def run(self, model: Path, data: Path, **fields: Any) -> dict[str, Any]:
        values = {"data": {"format": "ham10000", "path": str(data)}, "model": str(model), **fields}
        return explain(parse_spec("explain", values), self.place)  # type: ignore[arg-type]

    @property
    def numbers(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.output / "explanations.json").read_text())
        return found


@pytest.fixture(scope="module")
def explained(lesions: Path, index: Index, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Said:
    folder = tmp_path_factory.mktemp("explained")
    ids = [record.image_id for record in index.records]
    said = Said(folder, cache)
    said.run(bundle(folder / "model"), lesions, images=[ids[n] for n in (20, 3, 11, 30, 7)], batch_size=2)
    return said


def test_every_image_has_its_picture_and_all_is_announced(explained: Said) -> None:
    announced = [(event.name, event.media_type) for event in explained.events if isinstance(event, ArtifactWritten)]
    pictures = [(row["file"], "image/png") for row in explained.numbers["each"]]
    assert announced == [*pictures, ("explanations.json", "application/json")]
    assert sorted(path.name for path in explained.output.iterdir()) == sorted(name for name, _ in announced)
    last = explained.events[-1]
    assert isinstance(last, Result)
    assert last.summary["images"] == 5
    assert last.summary["synthetic"] is True
    assert last.summary.items() <= explained.numbers.items()
    assert figures_line(last.summary).startswith("5 images explained by grad_cam, spatial, received; with random")
    for name, _ in pictures:
        # Input over Grad-CAM, and four stages of M_s over what positions receive.
        expected = (GAP + 2 * (CAPTION + TILE + GAP), GAP + 5 * (TILE + GAP), 3)
        assert picture_in(explained.output / name).shape == expected


def test_the_pictures_show_the_maps_of_their_own_images(
    explained: Said, lesions: Path, index: Index, cache: Path
) -> None:
    """Worked out once more, image by image, from the model alone."""
    model, card = load_bundle(explained.output.parent / "model")
    pixels = open_pixels(index, 64, cache).pixels
    position = {record.image_id: number for number, record in enumerate(index.records)}
    for row in explained.numbers["each"]:
        at = position[row["image_id"]]
        image = normalise(torch.from_numpy(pixels[at : at + 1].copy()))
        with torch.no_grad():
            probabilities = model.eval()(image).softmax(dim=1)[0]
        assert list(row["probabilities"].values()) == pytest.approx(probabilities.tolist(), abs=1e-5)
        assert row["explained"] == row["predicted"] == card.classes[int(probabilities.argmax())]
        assert row["truth"] == index.classes[index.labels[at]]
        picture = decode(index.records[at].read_bytes(), TILE)
        panel = picture_in(explained.output / row["file"])
        tiles = [panel[y : y + TILE, GAP : GAP + TILE] for y in (GAP + CAPTION, 2 * (GAP + CAPTION) + TILE)]
        np.testing.assert_array_equal(tiles[0], picture)
        expected = overlay(picture, grad_cam(model, "bgpanet_micro", image)[0])
        assert np.abs(tiles[1].astype(int) - expected.astype(int)).max() <= 2


def test_the_numbers_tell_how_blocks_fuse_and_what_they_look_at(explained: Said) -> None:
    numbers = explained.numbers
    odds = np.exp([0.0, 1.0, 2.0])
    for row in numbers["fusion"]:
        assert list(row["fusion"].values()) == pytest.approx(list(odds / odds.sum()))
        assert list(row["fusion"]) == ["coarse", "fine", "context"]
    for whole, *parts in zip(numbers["blocks"], *(row["blocks"] for row in numbers["each"]), strict=True):
        assert whole["prior"]["mean"] == pytest.approx(np.mean([part["prior"]["mean"] for part in parts]))
        assert whole["spatial"]["most"] == max(part["spatial"]["most"] for part in parts)
        assert whole["received"]["mean"] == pytest.approx(1)
    assert list(numbers["randomised"]) == ["classifier", "classifier and blocks", "all weights"]
    for found in numbers["randomised"].values():
        assert found["images"] + found["flat"] == 5


def test_images_are_drawn_by_a_seed(lesions: Path, cache: Path, tmp_path: Path) -> None:
    model = bundle(tmp_path / "model", "swin_micro")
    drawn = []
    for number, seed in enumerate([0, 0, 1]):
        said = Said(tmp_path / str(number), cache)
        said.run(model, lesions, count=4, seed=seed)
        drawn.append([row["image_id"] for row in said.numbers["each"]])
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(set(drawn[0])) == 4


@pytest.mark.parametrize(
    ("name", "options", "methods"),
    [
        ("swin_micro", {}, ["grad_cam"]),
        ("bgpanet_micro", {"branches": "cpa"}, ["grad_cam"]),
        ("bgpanet_micro", {"branches": "cpa_sar", "placement": "block"}, ["grad_cam", "spatial"]),
    ],
)
def test_what_a_model_has_not_is_left_out_or_refused_where_it_is_asked_for(
    name: str, options: dict[str, Any], methods: list[str], lesions: Path, cache: Path, tmp_path: Path
) -> None:
    model, said = bundle(tmp_path / "model", name, **options), Said(tmp_path, cache)
    assert said.run(model, lesions, count=1)["methods"] == methods
    with pytest.raises(InvalidInput, match=f"methods: {name} has no received; it has {', '.join(methods)}"):
        said.run(model, lesions, count=1, methods=["received", "grad_cam"])


def test_one_method_alone_and_another_class_can_be_asked_for(lesions: Path, cache: Path, tmp_path: Path) -> None:
    model = bundle(tmp_path / "model")
    said = Said(tmp_path / "spatial", cache)
    assert said.run(model, lesions, count=1, methods=["spatial"])["randomised"] is None
    (row,) = said.numbers["each"]
    assert row["grad_cam_is_empty"] is None
    assert picture_in(said.output / row["file"]).shape == (GAP + CAPTION + TILE + GAP, GAP + 5 * (TILE + GAP), 3)
    other = Said(tmp_path / "df", cache)
    other.run(model, lesions, count=2, methods=["grad_cam"], explained="df", stage=3)
    assert [row["explained"] for row in other.numbers["each"]] == ["df", "df"]
    assert other.numbers["target_layer"] == "bgpa.2"


def test_everything_wrong_with_a_request_is_told_at_once(lesions: Path, cache: Path, tmp_path: Path) -> None:
    model, said = bundle(tmp_path / "model", "swin_micro"), Said(tmp_path, cache)
    with pytest.raises(InvalidInput) as caught:
        said.run(model, lesions, explained="wart", methods=["spatial"])
    assert [problem.where for problem in caught.value.problems] == ["methods", "explained"]
    data = shutil.copytree(lesions, tmp_path / "data")
    broken = next(data.glob("*/SYN_*.jpg"))
    broken.write_bytes(broken.read_bytes()[:900])
    with pytest.raises(InvalidInput) as caught:
        said.run(model, data, images=["ISIC_1", broken.stem])
    assert "'ISIC_1' is not in the data set" in str(caught.value)
    assert f"'{broken.stem}' can't be read" in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"), [("count", 201), ("images", []), ("images", ["a", "a"]), ("methods", ["lime"]), ("stage", 5)]
)
def test_a_spec_that_makes_no_sense_is_refused(field: str, value: Any) -> None:
    with pytest.raises(InvalidInput, match=field):
        parse_spec("explain", {"model": "m", field: value})


def test_it_stops_when_it_is_asked_to(lesions: Path, cache: Path, tmp_path: Path, index: Index) -> None:
    open_pixels(index, 64, cache)
    with pytest.raises(Interrupted, match="starts over"):
        Said(tmp_path, cache, stopped=True).run(bundle(tmp_path / "model"), lesions, count=2)
