"""A training and a cross-validation from the spec to the report, on drawn lesions."""

import csv
import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest

from bgpanet.bundles import load_bundle
from bgpanet.compute import Compute
from bgpanet.data.index import Index
from bgpanet.data.pixels import open_pixels
from bgpanet.data.readers.ham10000 import METADATA
from bgpanet.errors import Interrupted, InvalidInput, OutOfMemory
from bgpanet.evaluation.calibration import fit_temperature, scaled
from bgpanet.evaluation.metrics import classification_metrics
from bgpanet.evaluation.operating import frozen_thresholds
from bgpanet.evaluation.predictions import PredictionTable
from bgpanet.events import ArtifactWritten, Event, Log, Progress, Result
from bgpanet.experiment import Workplace, _meaning, cross_validate, train
from bgpanet.inference import infer_logits, softmax
from bgpanet.prediction import predict
from bgpanet.report import pictures
from bgpanet.report.gallery import read_gallery
from bgpanet.specs import CrossValidateSpec, PredictSpec, TrainSpec, parse_spec

FILES = [
    "gallery.json", "model.json", "model.safetensors", "model_card.md", "predictions.csv", "predictions.parquet",
    "report.html", "report.json", "split.json", "validation_predictions.parquet",
]  # fmt: skip


def spec(kind: str, data: Path, **changes: Any) -> Any:
    values: dict[str, Any] = {
        "data": {"format": "ham10000", "path": str(data)},
        "model": "bgpanet_micro",
        "image_size": 32,
        "split": {"folds": 2, "validation_folds": 2},
        "training": {"epochs": 2, "batch_size": 4, "learning_rate": 0.001, "precision": "fp32"},
    }
    return parse_spec(kind, {**values, **changes})


def train_spec(data: Path, **changes: Any) -> TrainSpec:
    made: TrainSpec = spec("train", data, **changes)
    return made


class Place:
    """A workplace that keeps what is said."""

    def __init__(self, output: Path, cache: Path, stop_after: int | None = None) -> None:
        self.said: list[Event] = []
        self.questions, self.stop_after = 0, stop_after
        self.work = Workplace(output, cache, self.said.append, self._stop, threads=1)

    def _stop(self) -> bool:
        self.questions += 1
        return self.stop_after is not None and self.questions > self.stop_after

    def artifacts(self) -> list[str]:
        return sorted(event.name for event in self.said if isinstance(event, ArtifactWritten))


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def trained(lesions: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], Place]:
    output = tmp_path_factory.mktemp("trained")
    place = Place(output, cache)
    return output, train(train_spec(lesions), place.work), place


@pytest.fixture(scope="module")
def crossed(lesions: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], Place]:
    output = tmp_path_factory.mktemp("crossed")
    place = Place(output, cache)
    return output, cross_validate(spec("cross_validate", lesions), place.work), place


def files(folder: Path) -> dict[str, str]:
    """Digests of what a run is judged by. A report names its host, so it is compared by its summary."""
    names = ["model.json", "model.safetensors", "predictions.csv", "predictions.parquet"]
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}


def drawn(folder: Path) -> list[str]:
    """The figures of the page of a run."""
    return re.findall(r"<svg .*?</svg>", (folder / "report.html").read_text(), flags=re.DOTALL)


# ── Training ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_training_leaves_its_files_and_says_so(trained: tuple[Path, dict[str, Any], Place]) -> None:
    output, summary, place = trained
    left = sorted(path.name for path in output.iterdir() if path.is_file())
    assert left == sorted([*FILES, "validation_predictions.csv"])
    assert place.artifacts() == FILES
    assert isinstance(place.said[-1], Result)
    assert json.dumps(place.said[-1].summary) == json.dumps(summary)


@pytest.mark.parametrize("kind", ["train", "cross_validate"])
def test_weights_that_can_not_be_had_are_told_before_an_image_is_read(
    kind: str, lesions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*args: object, **options: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr("torch.hub.urlopen", offline)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    asked = spec(kind, lesions, model={"name": "swin_t", "weights": "imagenet"})
    place = Place(tmp_path / "out", tmp_path / "cache")
    with pytest.raises(InvalidInput, match=r"swin_t-704ceda3\.pth"):
        (train if kind == "train" else cross_validate)(asked, place.work)
    assert (place.said, (tmp_path / "cache").exists()) == ([], False)


def test_how_many_images_pass_at_once_makes_no_other_run_but_with_batch_normalisation(
    trained: tuple[Path, dict[str, Any], Place], lesions: Path, cache: Path
) -> None:
    output, summary, _ = trained
    training = {"epochs": 2, "batch_size": 4, "learning_rate": 0.001, "precision": "fp32", "micro_batch_size": 2}
    again = train(train_spec(lesions, training=training), Place(output, cache).work)
    assert json.dumps(again) == json.dumps(summary)
    report = json.loads((output / "report.json").read_text())
    assert report["images_at_once"] == [{"after_step": 0, "images": 4}]
    for model, is_same in (("swin_micro", True), ("resnet101", False)):
        whole, parts = train_spec(lesions, model=model), train_spec(lesions, model=model, training=training)
        assert (_meaning(whole) == _meaning(parts)) is is_same


def test_the_figures_are_those_of_the_kept_weights_on_the_test_part(
    trained: tuple[Path, dict[str, Any], Place], index: Index, cache: Path
) -> None:
    """Worked out once more from the files alone: model, images, and which of them were tested."""
    output, summary, _ = trained
    model, card = load_bundle(output)
    table = PredictionTable.read(output / "predictions.parquet")
    position = {record.image_id: number for number, record in enumerate(index.records)}
    tested = np.array([position[image_id] for image_id in table.image_ids])
    pixels = open_pixels(index, card.image_size, cache).pixels
    compute = Compute(next(model.parameters()).device, "fp32", 1)
    probabilities = softmax(infer_logits(model, pixels, tested, 16, compute))
    np.testing.assert_allclose(table.probabilities, probabilities, rtol=0, atol=1e-6)
    figures = classification_metrics(index.labels[tested], table.probabilities, index.classes)
    assert summary["figures"] == figures
    assert summary["leakage"] == {"groups": 0, "images": 0, "share": 0.0}
    assert summary["split"]["images"]["test"] == len(tested)
    assert summary["synthetic"] is card.synthetic is True
    low, high = summary["intervals"]["balanced_accuracy"]
    assert low <= figures["balanced_accuracy"] <= high


def test_temperature_and_thresholds_are_fitted_on_validation_and_reported_on_the_test_part(
    trained: tuple[Path, dict[str, Any], Place],
) -> None:
    output, summary, _ = trained
    validation = PredictionTable.read(output / "validation_predictions.parquet")
    test = PredictionTable.read(output / "predictions.parquet")
    assert not set(validation.image_ids) & set(test.image_ids)
    assert not set(validation.groups) & set(test.groups)
    temperature = fit_temperature(validation.truth_labels(), validation.probabilities)
    assert summary["calibration"]["temperature"] == pytest.approx(temperature, rel=1e-3)
    after = classification_metrics(test.truth_labels(), scaled(test.probabilities, temperature))
    assert summary["calibration"]["after"]["nll"] == pytest.approx(after["nll"], rel=1e-3)
    assert summary["calibration"]["before"]["nll"] == pytest.approx(summary["figures"]["nll"])
    thresholds = frozen_thresholds(validation.truth_labels(), validation.probabilities)
    for point in summary["operating_points"]:
        k = summary["classes"].index(point["class"])
        threshold = thresholds[k][f"{point['wanted_specificity']:g}"]
        assert point["threshold"] == pytest.approx(threshold, abs=1e-6)
    assert set(summary["subgroups"]) == {"age", "sex", "site"}
    assert summary["intervals"].keys() >= {"balanced_accuracy", "macro_f1", "accuracy", "mcc", "nll", "auroc_macro"}
    assert summary["class_intervals"].keys() == set(summary["classes"])


def test_the_report_says_with_what_it_was_made(trained: tuple[Path, dict[str, Any], Place], index: Index) -> None:
    report = json.loads((trained[0] / "report.json").read_text())
    assert report["dataset_digest"] == index.digest
    assert report["environment"]["packages"].keys() >= {"torch", "numpy"}
    assert report["environment"]["threads"] == 1
    assert report["spec"]["training"]["epochs"] == 2
    assert "data" not in report["spec"]
    assert report["kept"]["epoch"] in (1, 2)


def test_the_page_shows_the_run_and_the_pictures_of_its_test_part(
    trained: tuple[Path, dict[str, Any], Place], index: Index
) -> None:
    output, summary, _ = trained
    curves = json.loads((output / "report.json").read_text())["curves"]
    assert curves["train_loss"][0] == list(range(1, len(curves["learning_rate"][1]) + 1))
    assert len(curves["validation_loss"][1]) == 2
    assert len(drawn(output)) == 3
    page = (output / "report.html").read_text()
    assert f"{summary['figures']['balanced_accuracy']:.3f}" in page
    assert index.digest in page
    tested = PredictionTable.read(output / "predictions.parquet").image_ids
    shown = read_gallery(output)
    assert {picture.image_id for picture in shown} <= set(tested)
    assert all(picture.overlay for picture in shown)
    assert "drawn by program" in (output / "model_card.md").read_text()


def test_pictures_that_can_not_be_made_cost_no_training(
    lesions: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise OutOfMemory("8 images at once do not fit the device's memory")

    monkeypatch.setattr(pictures, "draw", broken)
    place = Place(tmp_path, cache)
    once = {"epochs": 1, "batch_size": 16, "precision": "fp32"}
    train(train_spec(lesions, subset={"max_groups_per_class": 4}, training=once), place.work)
    assert isinstance(place.said[-1], Result)
    assert place.artifacts() == FILES
    warnings = [event.message for event in place.said if isinstance(event, Log) and event.level == "warning"]
    assert warnings == ["the report has no pictures: OutOfMemory: 8 images at once do not fit the device's memory"]
    assert "there are no pictures of them" in (tmp_path / "report.html").read_text()


def test_a_training_that_was_interrupted_and_lost_its_place_ends_with_the_same_files(
    trained: tuple[Path, dict[str, Any], Place], lesions: Path, tmp_path: Path
) -> None:
    for stop_after in (0, 1, 3):
        with pytest.raises(Interrupted):
            train(train_spec(lesions), Place(tmp_path / "output", tmp_path / "cache", stop_after).work)
    shutil.rmtree(tmp_path / "cache")
    summary = train(train_spec(lesions), Place(tmp_path / "output", tmp_path / "cache").work)
    assert summary == trained[1]
    assert files(tmp_path / "output") == files(trained[0])
    reports = [json.loads((folder / "report.json").read_text()) for folder in (tmp_path / "output", trained[0])]
    assert reports[0]["curves"] == reports[1]["curves"]
    assert drawn(tmp_path / "output") == drawn(trained[0])
    assert (tmp_path / "output" / "gallery.json").read_bytes() == (trained[0] / "gallery.json").read_bytes()


def test_a_finished_training_is_told_again_and_another_one_refused(
    trained: tuple[Path, dict[str, Any], Place], lesions: Path, cache: Path
) -> None:
    place = Place(trained[0], cache)
    assert train(train_spec(lesions), place.work) == json.loads(json.dumps(trained[1]))
    assert place.artifacts() == FILES
    with pytest.raises(InvalidInput, match="report of another run"):
        train(train_spec(lesions, loss={"schedule": "ce"}), place.work)


def test_images_that_can_not_be_read_are_excluded_and_counted(lesions: Path, tmp_path: Path) -> None:
    data = shutil.copytree(lesions, tmp_path / "data")
    with (data / METADATA).open() as file:
        first = next(row["image_id"] for row in csv.DictReader(file) if row["dx"] == "nv")
    (image,) = data.glob(f"*/{first}.jpg")
    image.write_bytes(image.read_bytes()[:900])
    summary = train(train_spec(data), Place(tmp_path / "out", tmp_path / "cache").work)
    assert summary["excluded_images"] == 1
    assert list(json.loads((tmp_path / "out" / "report.json").read_text())["unreadable"]) == [first]


def test_a_split_by_image_reports_what_leaks(lesions: Path, cache: Path, tmp_path: Path) -> None:
    split = {"unit": "image", "folds": 2, "validation_folds": 2}
    summary = train(train_spec(lesions, split=split), Place(tmp_path, cache).work)
    assert summary["leakage"]["images"] > 0


def test_a_subset_is_what_was_asked_for(lesions: Path, cache: Path, tmp_path: Path) -> None:
    summary = train(train_spec(lesions, subset={"max_groups_per_class": 4}), Place(tmp_path, cache).work)
    assert sum(summary["split"]["groups"].values()) == 28


def test_without_data_there_is_nothing_to_train_on(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="name `format` and `path`"):
        train(TrainSpec(), Place(tmp_path, tmp_path).work)


# ── Cross-validation ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_cross_validation_tests_every_image_once_and_pools(
    crossed: tuple[Path, dict[str, Any], Place], index: Index
) -> None:
    output, summary, place = crossed
    table = PredictionTable.read(output / "predictions.parquet")
    assert sorted(table.image_ids) == sorted(record.image_id for record in index.records)
    figures = classification_metrics(table.truth_labels(), table.probabilities, index.classes)
    assert summary["pooled"] == figures
    folds = [json.loads((output / f"fold-{n}" / "report.json").read_text())["figures"] for n in (0, 1)]
    values = [fold["balanced_accuracy"] for fold in folds]
    assert summary["mean"]["balanced_accuracy"]["mean"] == pytest.approx(np.mean(values))
    assert summary["mean"]["balanced_accuracy"]["sd"] == pytest.approx(np.std(values, ddof=1))
    assert summary["leakage"]["groups"] == 0
    assert len(summary["calibration"]["temperatures"]) == 2
    assert sum(row["images"] for row in summary["subgroups"]["sex"]) == len(index.records)
    assert summary["operating_points"][0]["sensitivity_sd"] is not None
    fractions = [event.fraction for event in place.said if isinstance(event, Progress)]
    assert fractions == sorted(fractions)
    wanted = ["model_card.md", "predictions.csv", "predictions.parquet", "report.html", "report.json"]
    assert place.artifacts() == wanted


def test_a_fold_is_the_training_of_that_fold(
    crossed: tuple[Path, dict[str, Any], Place], trained: tuple[Path, dict[str, Any], Place]
) -> None:
    assert files(crossed[0] / "fold-0") == files(trained[0])


def test_a_cross_validation_goes_on_with_the_fold_it_was_in(
    crossed: tuple[Path, dict[str, Any], Place], lesions: Path, cache: Path, tmp_path: Path
) -> None:
    made: CrossValidateSpec = spec("cross_validate", lesions)
    with pytest.raises(Interrupted):
        cross_validate(made, Place(tmp_path, cache, stop_after=8).work)
    assert (tmp_path / "fold-0" / "report.json").exists()
    assert not (tmp_path / "fold-1" / "report.json").exists()
    assert cross_validate(made, Place(tmp_path, cache).work) == crossed[1]
    assert (tmp_path / "predictions.csv").read_bytes() == (crossed[0] / "predictions.csv").read_bytes()


@pytest.mark.parametrize("change", [{"loss": "focal"}, {"model": "swin_micro"}, {"data": "other"}])
def test_folds_of_another_experiment_are_not_pooled(
    crossed: tuple[Path, dict[str, Any], Place], lesions: Path, cache: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    """A figure under a spec that did not make it would be a lie."""
    output = shutil.copytree(crossed[0], tmp_path / "output")
    data = lesions
    if "data" in change:
        data = shutil.copytree(lesions, tmp_path / "data")
        next(data.glob("*/SYN_*.jpg")).write_bytes(next(lesions.glob("*_part_2/SYN_*.jpg")).read_bytes() + b" ")
        change = {}
    with pytest.raises(InvalidInput, match="is the report of another run"):
        cross_validate(spec("cross_validate", data, **change), Place(output, cache).work)


# ── Prediction ───────────────────────────────────────────────────────────────────────────────────────────────────


def predicted(model: Path, format: str, data: Path, place: Place, **changes: Any) -> dict[str, Any]:
    values = {"data": {"format": format, "path": str(data)}, "model": str(model), "batch_size": 16, "precision": "fp32"}
    made = parse_spec("predict", {**values, **changes})
    assert isinstance(made, PredictSpec)
    return predict(made, place.work)


def test_a_prediction_has_a_row_for_every_image_and_an_error_for_an_unreadable_one(
    trained: tuple[Path, dict[str, Any], Place], tmp_path: Path
) -> None:
    from bgpanet.data import synthetic

    synthetic.draw_unlabelled(tmp_path / "new", count=5, seed=0, broken=1)
    place = Place(tmp_path / "out", tmp_path / "cache")
    summary = predicted(trained[0], "folder", tmp_path / "new", place)
    assert (summary["images"], summary["unreadable"], sum(summary["predicted"].values())) == (6, 1, 5)
    with (tmp_path / "out" / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["image_id"] for row in rows] == [f"NEW_{n:04d}" for n in range(6)]
    for row in rows[:5]:
        p = {name: float(row[f"p_{name}"]) for name in ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")}
        assert sum(p.values()) == pytest.approx(1)
        assert row["predicted"] == max(p, key=lambda name: p[name])
        assert row["error"] == ""
    assert rows[5]["error"]
    assert rows[5]["predicted"] == rows[5]["p_nv"] == ""


def test_a_prediction_of_the_tested_images_gives_the_reported_probabilities(
    trained: tuple[Path, dict[str, Any], Place], lesions: Path, cache: Path, tmp_path: Path
) -> None:
    predicted(trained[0], "ham10000", lesions, Place(tmp_path, cache))
    found = PredictionTable.read(tmp_path / "predictions.parquet")
    row = {image_id: number for number, image_id in enumerate(found.image_ids)}
    reported = PredictionTable.read(trained[0] / "predictions.parquet")
    chosen = [row[image_id] for image_id in reported.image_ids]
    np.testing.assert_allclose(found.probabilities[chosen], reported.probabilities, rtol=0, atol=1e-6)


def test_a_prediction_begins_before_all_images_are_decoded_and_leaves_nothing_when_it_is_interrupted(
    trained: tuple[Path, dict[str, Any], Place], lesions: Path, index: Index, cache: Path, tmp_path: Path
) -> None:
    place = Place(tmp_path / "out", tmp_path / "cache", stop_after=1)
    with pytest.raises(Interrupted):
        predicted(trained[0], "ham10000", lesions, place)
    assert [event.message for event in place.said if isinstance(event, Progress)] == [
        f"16 of {len(index.records)} images"
    ]
    assert list((tmp_path / "out").iterdir()) == []
    assert not list((tmp_path / "cache").rglob("manifest.json"))
    predicted(trained[0], "ham10000", lesions, Place(tmp_path / "out", tmp_path / "cache"))
    predicted(trained[0], "ham10000", lesions, Place(tmp_path / "again", cache))  # already decoded
    for name in ("predictions.csv", "predictions.parquet"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_a_folder_in_which_nothing_can_be_read_is_all_errors(
    trained: tuple[Path, dict[str, Any], Place], tmp_path: Path
) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "a.jpg").write_bytes(b"no image")
    summary = predicted(trained[0], "folder", tmp_path / "new", Place(tmp_path / "out", tmp_path / "cache"))
    assert (summary["images"], summary["unreadable"]) == (1, 1)


def test_a_model_that_is_none_is_refused(lesions: Path, cache: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="is no model that can be read"):
        predicted(tmp_path, "ham10000", lesions, Place(tmp_path, cache))


def test_shards_that_are_joined_are_byte_for_byte_the_prediction_in_one_run(
    trained: tuple[Path, dict[str, Any], Place], lesions: Path, index: Index, cache: Path, tmp_path: Path
) -> None:
    data = shutil.copytree(lesions, tmp_path / "data")
    sorted(data.glob("*/SYN_*.jpg"))[20].write_bytes(b"no image")
    whole = predicted(trained[0], "ham10000", data, Place(tmp_path / "whole", tmp_path / "none"))
    whole_spec = PredictSpec(model="x", batch_size=16, shard_images=20)
    shards = whole_spec.shards(len(index.records))
    assert [shard.shard.first % 16 for shard in shards if shard.shard] == [0] * len(shards)
    joined = tmp_path / "joined"
    for number, shard in enumerate(shards):
        assert shard.shard is not None
        place = Place(joined / f"shard-{number}", tmp_path / "empty")
        predicted(trained[0], "ham10000", data, place, shard=shard.shard.model_dump())
    assert not list((tmp_path / "empty").glob("*"))  # a shard decodes its own images and leaves none behind
    again = Place(joined / "shard-1", tmp_path / "none")  # the cache has all: the same bytes
    before = (joined / "shard-1" / "predictions.parquet").read_bytes()
    assert shards[1].shard is not None
    predicted(trained[0], "ham10000", data, again, shard=shards[1].shard.model_dump())
    assert (joined / "shard-1" / "predictions.parquet").read_bytes() == before
    summary = predicted(trained[0], "ham10000", data, Place(joined, tmp_path / "none"))
    assert summary == {**whole, "shards": len(shards)}
    for name in ("predictions.csv", "predictions.parquet", "errors.csv"):
        assert (joined / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert len((joined / "errors.csv").read_text().splitlines()) == 2


@pytest.mark.parametrize("harm", ["missing", "doubled", "swapped"])
def test_shards_that_do_not_make_up_the_data_set_are_refused(
    trained: tuple[Path, dict[str, Any], Place], lesions: Path, cache: Path, tmp_path: Path, harm: str
) -> None:
    shards = PredictSpec(model="x", batch_size=16, shard_images=32).shards(48)
    for number, shard in enumerate(shards):
        assert shard.shard is not None
        place = Place(tmp_path / f"shard-{number}", cache)
        predicted(trained[0], "ham10000", lesions, place, shard=shard.shard.model_dump())
    first, second = tmp_path / "shard-0", tmp_path / "shard-1"
    if harm == "missing":
        shutil.rmtree(second)
    elif harm == "doubled":
        shutil.copytree(second, tmp_path / "shard-2")
    else:
        first.rename(tmp_path / "shard-9")
    with pytest.raises(InvalidInput, match="shards"):
        predicted(trained[0], "ham10000", lesions, Place(tmp_path, cache))
    assert not (tmp_path / "predictions.csv").exists()


def test_folds_answer_together_with_their_mean_and_how_far_they_disagree(
    crossed: tuple[Path, dict[str, Any], Place], lesions: Path, cache: Path, tmp_path: Path
) -> None:
    summary = predicted(crossed[0], "ham10000", lesions, Place(tmp_path / "all", cache))
    assert summary["members"] == 2
    alone = []
    for fold in range(2):
        predicted(crossed[0] / f"fold-{fold}", "ham10000", lesions, Place(tmp_path / f"{fold}", cache))
        alone.append(PredictionTable.read(tmp_path / f"{fold}" / "predictions.parquet"))
    together = PredictionTable.read(tmp_path / "all" / "predictions.parquet")
    p, q = alone[0].probabilities, alone[1].probabilities
    np.testing.assert_allclose(together.probabilities, (p + q) / 2, rtol=0, atol=1e-7)
    # The mutual information as the mean divergence of the members from their mean: another way to the same figure.
    m = (p + q) / 2
    divergence = ((p * np.log(p / m)).sum(axis=1) + (q * np.log(q / m)).sum(axis=1)) / 2
    assert together.disagreement is not None
    np.testing.assert_allclose(together.disagreement, divergence, rtol=0, atol=1e-6)
    assert summary["mean_disagreement"] == pytest.approx(divergence.mean(), abs=1e-6)
    assert alone[0].disagreement is None


def test_a_shard_behind_the_last_image_is_refused(
    trained: tuple[Path, dict[str, Any], Place], lesions: Path, cache: Path, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInput, match="behind the last"):
        predicted(trained[0], "ham10000", lesions, Place(tmp_path, cache), shard={"first": 0, "count": 100_000})
