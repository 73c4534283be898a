"""Reports of nets that do not exist: random answers, everything else worked out by the real functions."""

import base64
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bgpanet.evaluation.bootstrap import grouped_intervals
from bgpanet.evaluation.calibration import scaled
from bgpanet.evaluation.metrics import classification_metrics
from bgpanet.evaluation.operating import frozen_thresholds, operating_points
from bgpanet.evaluation.predictions import PredictionTable
from bgpanet.evaluation.subgroups import subgroup_figures
from bgpanet.evaluation.summary import calibration, divided
from bgpanet.report.gallery import Picture, answers, chosen
from bgpanet.report.pages import Material
from bgpanet.specs import parse_spec

CLASSES = ["mel", "nv", "bkl"]
STEPS = 40


def jpeg() -> str:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "brown").save(file, "JPEG")
    return base64.b64encode(file.getvalue()).decode()


def table(classes: list[str], n: int = 60, fold: int = 0, absent: int | None = None) -> PredictionTable:
    """Answers to n images that are often right; none is of class `absent`."""
    rng = np.random.default_rng(fold)
    known = [k for k in range(len(classes)) if k != absent]
    truth = np.array([known[k % len(known)] for k in range(n)])
    logits = rng.normal(0, 1, (n, len(classes))) + 1.5 * np.eye(len(classes))[truth]
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    ids = [f"IMG_{fold}_{k:03d}" for k in range(n)]
    groups = [f"LESION_{fold}_{k // 2}" for k in range(n)]
    return PredictionTable(classes, ids, groups, [fold] * n, [classes[k] for k in truth], [""] * n, p)


def curves() -> dict[str, list[list[float]]]:
    steps = [float(step) for step in range(1, STEPS + 1)]
    epochs = steps[9::10]
    return {
        "train_loss": [steps, [2 - step / 40 for step in steps]],
        "learning_rate": [steps, [1e-3 - step / 1e5 for step in steps]],
        "loss_weight_ce": [steps, [1 - step / 40 for step in steps]],
        "loss_weight_focal": [steps, [step / 40 for step in steps]],
        "train_loss_of_epoch": [epochs, [1.8, 1.5, 1.2, 1.1]],
        "validation_loss": [epochs, [1.9, 1.6, 1.5, 1.55]],
        "validation_balanced_accuracy": [epochs, [0.3, 0.5, 0.6, 0.55]],
    }


def report(found: PredictionTable, **changes: Any) -> dict[str, Any]:
    """As `report.json` of a training has it."""
    truth, p, classes = found.truth_labels(), np.asarray(found.probabilities, dtype=np.float64), list(found.classes)
    attributes = [{"age": str(30 + 3 * (k % 15)), "sex": ["male", "female"][k % 2]} for k in range(len(truth))]
    spec = parse_spec("train", {"model": "bgpanet_micro", "training": {"epochs": 4, "learning_rate": 0.001}})
    count, thresholds = len(truth), frozen_thresholds(truth, p)
    values: dict[str, Any] = {
        "kind": "train",
        "figures": classification_metrics(truth, p, classes),
        **divided(grouped_intervals(truth, p, np.asarray(found.groups), resamples=50), classes),
        "calibration": {"temperature": 1.3, **calibration(truth, p, scaled(p, 1.3))},
        "operating_points": operating_points(truth, p, found.groups, thresholds, classes, resamples=50),
        "subgroups": subgroup_figures(truth, p, found.groups, attributes, resamples=50),
        "classes": classes,
        "leakage": {"groups": 0, "images": 0, "share": 0.0},
        "split": {
            "unit": "lesion", "folds": 5, "fold": 0, "digest": "5" * 64, "group_unit": "lesion",
            "images": {"train": 4 * count, "validation": count, "test": count},
            "groups": {"train": 2 * count, "validation": count // 2, "test": count // 2},
        },
        "kept": {"epoch": 3, "step": 30, "monitor": "balanced_accuracy", "value": 0.6, "loss_weight_focal": 0.75},
        "epochs_run": 4,
        "stopped_early": False,
        "excluded_images": 0,
        "synthetic": False,
        "spec": spec.model_dump(mode="json", exclude={"data", "resources"}),
        "dataset_digest": "d" * 64,
        "data": {
            "format": "folder", "digest": "d" * 64, "images": 6 * count, "groups": 3 * count, "group_unit": "lesion",
            "class_counts": dict.fromkeys(classes, 2 * count), "source": None,
        },
        "class_counts": {part: [count] * len(classes) for part in ("train", "validation", "test")},
        "curves": curves(),
        "environment": {
            "bgpanet": "0.1.0", "python": "3.11", "packages": {"torch": "2.11"}, "host": "node-a", "device": "cpu",
            "precision": "fp32", "threads": 2,
        },
        "findings": [],
    }  # fmt: skip
    return {**values, **changes}


def pictures(found: PredictionTable) -> list[Picture]:
    told = answers(found)
    return [Picture(**vars(told[row]), image=jpeg(), overlay=jpeg()) for row in chosen(found)]


def material(classes: list[str] = CLASSES, absent: int | None = None, **changes: Any) -> Material:
    found = table(classes, absent=absent)
    return Material(report(found, **changes), found, pictures(found))


@pytest.fixture(scope="session")
def training() -> Material:
    return material()


@pytest.fixture(scope="session")
def crossed() -> Material:
    """A cross-validation of two folds."""
    tables = [table(CLASSES, fold=fold) for fold in (0, 1)]
    folds = [report(found) for found in tables]
    for number, fold in enumerate(folds):
        fold["split"]["fold"] = number
    whole = PredictionTable.concatenate(tables)
    pooled = report(whole, kind="cross_validate", folds=2, mean={"balanced_accuracy": {"mean": 0.61, "sd": 0.042}})
    pooled["pooled"] = pooled.pop("figures")
    pooled["calibration"]["temperatures"] = [1.3, 1.4]
    for name in ("curves", "kept", "split", "class_counts"):
        del pooled[name]
    return Material(pooled, whole, [picture for found in tables for picture in pictures(found)], folds)
