"""Figures on images that a model has not seen, and the refusal where it has."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bgpanet.bundles import load_bundle
from bgpanet.data import synthetic
from bgpanet.data.readers import read
from bgpanet.data.splits import lock
from bgpanet.errors import InvalidInput
from bgpanet.evaluation.calibration import scaled
from bgpanet.evaluation.metrics import classification_metrics
from bgpanet.evaluation.predictions import PredictionTable
from bgpanet.events import ArtifactWritten, Event, Log, Result
from bgpanet.experiment import Workplace, train
from bgpanet.held_out import evaluate_model
from bgpanet.specs import EvaluateSpec, TrainSpec, parse_spec

LOCKED = {"share": 0.2, "seed": 3}


def place(output: Path, cache: Path, said: list[Event] | None = None) -> Workplace:
    return Workplace(output, cache, (said if said is not None else []).append, threads=1)


def evaluate_spec(model: Path, folder: Path, **changes: Any) -> EvaluateSpec:
    values = {
        "data": {"format": "ham10000", "path": str(folder), "locked": LOCKED},
        "model": str(model),
        "part": "locked",
    }
    made = parse_spec("evaluate", {**values, "precision": "fp32", **changes})
    assert isinstance(made, EvaluateSpec)
    return made


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def lesions_to_lock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lesions")
    synthetic.draw(folder, lesions=400, seed=2)
    return folder


@pytest.fixture(scope="module")
def model(lesions_to_lock: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained on the open part."""
    output = tmp_path_factory.mktemp("model")
    spec = parse_spec("train", {
        "data": {"format": "ham10000", "path": str(lesions_to_lock), "locked": LOCKED},
        "model": "bgpanet_micro", "image_size": 32, "split": {"folds": 2, "validation_folds": 2},
        "training": {"epochs": 1, "batch_size": 8, "learning_rate": 0.001, "precision": "fp32"},
    })  # fmt: skip
    assert isinstance(spec, TrainSpec)
    train(spec, place(output, cache))
    return output


def test_a_training_sees_nothing_of_the_locked_part(model: Path, lesions_to_lock: Path) -> None:
    _, locked = lock(read("ham10000", lesions_to_lock), **LOCKED)  # type: ignore[arg-type]
    parts = json.loads((model / "split.json").read_text())["parts"]
    seen = {image_id for part in parts.values() for image_id, _, _ in part}
    assert seen
    assert not seen & {record.image_id for record in locked.records}
    tables = [PredictionTable.read(model / f"{name}.parquet") for name in ("predictions", "validation_predictions")]
    groups = {group for table in tables for group in table.groups}
    assert not groups & set(locked.groups)


def test_the_figures_are_those_of_the_locked_part_with_what_the_training_froze(
    model: Path, lesions_to_lock: Path, cache: Path, tmp_path: Path
) -> None:
    said: list[Event] = []
    summary = evaluate_model(evaluate_spec(model, lesions_to_lock), place(tmp_path, cache, said))
    index = read("ham10000", lesions_to_lock)
    _, locked = lock(index, **LOCKED)  # type: ignore[arg-type]
    table = PredictionTable.read(tmp_path / "predictions.parquet")
    assert list(table.image_ids) == [record.image_id for record in locked.records]
    truth = table.truth_labels()
    assert truth.tolist() == locked.labels.tolist()
    assert summary["figures"] == classification_metrics(truth, table.probabilities, locked.classes)
    _, card = load_bundle(model)
    assert card.frozen is not None
    after = classification_metrics(truth, scaled(table.probabilities, card.frozen.temperature))
    assert summary["calibration"]["after"]["nll"] == pytest.approx(after["nll"])
    trained = json.loads((model / "report.json").read_text())
    frozen = [point["threshold"] for point in trained["operating_points"]]
    assert [point["threshold"] for point in summary["operating_points"]] == frozen
    melanoma = next(p for p in summary["operating_points"] if p["class"] == "mel" and p["wanted_specificity"] == 0.9)
    k = list(card.classes).index("mel")
    found = table.probabilities[truth == k, k] > melanoma["threshold"]
    assert melanoma["sensitivity"] == pytest.approx(float(np.mean(found)))
    assert isinstance(said[-1], Result)
    assert {event.name for event in said if isinstance(event, ArtifactWritten)} == {
        "report.json", "predictions.csv", "predictions.parquet",
    }  # fmt: skip


def test_images_that_the_model_has_seen_are_refused_however_they_are_called(
    model: Path, lesions_to_lock: Path, cache: Path, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInput, match="images had part in the model's training"):
        evaluate_model(evaluate_spec(model, lesions_to_lock, part="open"), place(tmp_path / "open", cache))
    parts = json.loads((model / "split.json").read_text())["parts"]
    seen = parts["train"][0][0]
    renamed = tmp_path / "renamed" / "nv"
    renamed.mkdir(parents=True)
    source = next(lesions_to_lock.rglob(f"{seen}.jpg"))
    shutil.copy(source, renamed / "another_name.jpg")
    elsewhere = {"format": "folder", "path": str(tmp_path / "renamed")}
    with pytest.raises(InvalidInput, match="another_name"):
        evaluate_model(evaluate_spec(model, lesions_to_lock, data=elsewhere, part="open"), place(tmp_path / "o", cache))


def test_lesions_of_the_same_name_are_told_and_counted(model: Path, cache: Path, tmp_path: Path) -> None:
    synthetic.draw(tmp_path / "others", lesions=40, seed=9)
    data = {"format": "ham10000", "path": str(tmp_path / "others")}
    said: list[Event] = []
    summary = evaluate_model(evaluate_spec(model, tmp_path, data=data, part="open"), place(tmp_path / "o", cache, said))
    seen = json.loads((model / "split.json").read_text())["parts"]
    trained = {group for name in ("train", "validation") for _, _, group in seen[name]}
    index = read("ham10000", tmp_path / "others")
    shared = [group in trained for group in index.groups]
    assert summary["leakage"]["images"] == sum(shared) > 0
    assert summary["leakage"]["share"] == pytest.approx(np.mean(shared))
    assert any(isinstance(event, Log) and "have names that occur" in event.message for event in said)


def test_a_model_that_did_not_record_what_it_saw_is_refused(
    model: Path, lesions_to_lock: Path, cache: Path, tmp_path: Path
) -> None:
    old = tmp_path / "old"
    shutil.copytree(model, old, ignore=shutil.ignore_patterns("split.json", "checkpoints"))
    with pytest.raises(InvalidInput, match=r"lacks a readable split\.json"):
        evaluate_model(evaluate_spec(old, lesions_to_lock), place(tmp_path / "o", cache))


def test_classes_that_the_model_does_not_know_are_refused(
    model: Path, lesions_to_lock: Path, cache: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "data" / "eczema"
    folder.mkdir(parents=True)
    shutil.copy(next(lesions_to_lock.rglob("*.jpg")), folder / "one.jpg")
    data = {"format": "folder", "path": str(tmp_path / "data")}
    with pytest.raises(InvalidInput, match="eczema"):
        evaluate_model(evaluate_spec(model, lesions_to_lock, data=data, part="open"), place(tmp_path / "o", cache))


def test_without_a_lock_there_is_no_locked_part(
    model: Path, lesions_to_lock: Path, cache: Path, tmp_path: Path
) -> None:
    data = {"format": "ham10000", "path": str(lesions_to_lock)}
    with pytest.raises(InvalidInput, match=r"data\.locked"):
        evaluate_model(evaluate_spec(model, lesions_to_lock, data=data), place(tmp_path, cache))
