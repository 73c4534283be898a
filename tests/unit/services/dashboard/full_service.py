"""A service's web application on SQLite and a folder, and jobs in every state, made through the state machine."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from flask import Flask
from sqlalchemy import insert

from bgpanet.evaluation.bootstrap import grouped_intervals
from bgpanet.evaluation.calibration import fit_temperature
from bgpanet.evaluation.metrics import classification_metrics
from bgpanet.evaluation.operating import frozen_thresholds
from bgpanet.evaluation.pooling import FoldPredictions, pool_folds
from bgpanet.evaluation.predictions import PredictionTable
from bgpanet.evaluation.summary import evaluate
from bgpanet.specs import CrossValidateSpec, parse_spec
from services import fleet, jobs, models, tokens
from services.claims import Batch, Claim, NewArtifact, NewJob, StoredFile
from services.context import Context
from services.fleet import Member, Weights
from services.models import Wanted
from services.order import Offer
from services.settings import Settings
from services.tables import Dataset
from services.tokens import Principal, Role
from services.web import create_app
from tests.support.databases import make_schema
from tests.support.trained import CARD

CLASSES = ["akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"]
SHARES = [33, 51, 110, 12, 111, 670, 14]
SPEC = {
    "model": "bgpanet_micro",
    "training": {"epochs": 30, "batch_size": 32, "learning_rate": 1e-3, "warmup_epochs": 2, "patience": 30},
}
STEPS_PER_EPOCH = 20
LONG_NAME = "a-name-that-is-rather-long-so-that-one-sees-what-becomes-of-it-where-there-is-little-room-for-names"
EVIL = "<script>alert(1)</script>"


@dataclass
class Service:
    """A web application and what is needed to fill it."""

    app: Flask
    context: Context

    def token(self, user: str, role: Role = "researcher") -> tuple[str, str]:
        """Id and secret of a new token."""
        return tokens.create(self.context.database, f"{user}'s", user, role)

    def submit(self, kind: str = "train", user: str = "ada", **changes: Any) -> str:
        spec = parse_spec(kind, changes.pop("spec", SPEC))
        values = {"name": "training", "dataset_id": "lesions-id", **changes}
        new = NewJob(kind=kind, spec=spec.model_dump(mode="json"), created_by=user, **values)
        if isinstance(spec, CrossValidateSpec):
            children = [
                NewJob("train", f"{new.name}, fold {n}", spec.fold(n).model_dump(mode="json"), new.dataset_id, user)
                for n in range(spec.split.folds)
            ]
            new = NewJob(**{**vars(new), "children": children})
        return jobs.submit(self.context.database, new)[0]

    def claim(self, worker: str = "gpu-0") -> Claim:
        claimed = jobs.claim(self.context.database, worker, Offer(["any"]), 3600)
        assert claimed is not None
        return claimed

    def say(self, claim: Claim, epochs: int, of: int = 30, seed: int = 0) -> None:
        """Progress, figures and log lines of the first `epochs` epochs."""
        steps = STEPS_PER_EPOCH * of
        logs = [("info", f"{epochs * 600} images to train; cpu"), ("warning", f"a line with {EVIL} & more")]
        logs += [("info", f"epoch {n}: validation loss {1.9 - 0.03 * n:.3f}") for n in range(1, epochs + 1)]
        progress = {
            "fraction": epochs / of,
            "step": epochs * STEPS_PER_EPOCH,
            "steps": steps,
            "epoch": min(epochs + 1, of),
            "epochs": of,
            "eta_seconds": 7.5 * (of - epochs),
            "message": f"loss {1.6 - epochs * 0.03:.3f}",
        }
        batch = Batch(progress=progress, metrics=_metrics(epochs, of, seed), logs=logs)
        jobs.renew(self.context.database, claim.lease, 3600, batch)

    def finish(self, claim: Claim, summary: Mapping[str, Any], files: Mapping[str, bytes] | None = None) -> None:
        stored = [self._store(name, content) for name, content in (files or {}).items()]
        jobs.finish(self.context.database, claim.lease, summary, stored)

    def _store(self, name: str, content: bytes) -> NewArtifact:
        path = self.context.settings.home / "file"
        path.write_bytes(content)
        sha256 = hashlib.sha256(content).hexdigest()
        file = StoredFile(f"files/{sha256}", sha256, len(content))
        self.context.store.put_file(file.key, path, file.sha256)
        media = {".json": "application/json", ".html": "text/html", ".png": "image/png"}.get(
            Path(name).suffix, "application/octet-stream"
        )
        return NewArtifact(name, media, file)


@contextmanager
def service(home: Path) -> Iterator[Service]:
    """An empty service whose Redis is absent; nothing of it stays open."""
    settings = Settings.load({"BGPANET_HOME": str(home), "BGPANET_REDIS_URL": "redis://127.0.0.1:1/0"})
    app = create_app(settings)
    context: Context = app.extensions["bgpanet"]
    make_schema(context.database.url)
    try:
        yield Service(app, context)
    finally:
        context.database.close()


def add_datasets(made: Service) -> None:
    """A labelled, drawn set with findings, and an unlabelled one."""
    counts = [
        {"class": name, "images": n, "groups": max(10, n * 3 // 4)} for name, n in zip(CLASSES, SHARES, strict=True)
    ]
    common = {"files": {}, "created_by": "root", "created_at": 1_760_000_000_000, "format": "ham10000"}
    findings = [
        {"level": "warned", "where": "ISIC_0034320.jpg", "what": f"is byte-identical to ISIC_0024306.jpg {EVIL}"},
        {"level": "excluded", "where": "ISIC_0029297.jpg", "what": "cannot be decoded"},
    ]
    with made.context.database.write() as session:
        session.execute(
            insert(Dataset).values(
                **common,
                id="lesions-id",
                name="lesions",
                digest=hashlib.sha256(b"lesions").hexdigest(),
                synthetic=True,
                classes=CLASSES,
                images=sum(SHARES),
                groups=sum(count["groups"] for count in counts),
                group_unit="lesion",
                class_counts=counts,
                findings=findings,
            )
        )
        session.execute(
            insert(Dataset).values(
                **{**common, "format": "folder"},
                id="new-id",
                name="new-images",
                digest=hashlib.sha256(b"new").hexdigest(),
                synthetic=False,
                classes=[],
                images=60,
                groups=60,
                group_unit="image",
                class_counts=[],
                findings=[],
            )
        )


def fill(made: Service) -> dict[str, str]:
    """A job in every state and of every kind, data sets, models and workers. Returns ids by what they stand for."""
    add_datasets(made)
    ids = {"succeeded": made.submit(name="BGPANet micro, first look")}
    claim = made.claim()
    made.say(claim, 30)
    made.finish(
        claim,
        training_summary(),
        {
            "predictions.csv": predictions(made),
            "report.json": b'{"a": 1}',
            "report.html": b"<h1>Report</h1>",
            "model.safetensors": b"\0" * 1_400_000,
            "model.json": json.dumps({**CARD, "classes": CLASSES}).encode(),
            "model_card.md": f"# A card\n\n## Data\n\n| | |\n|---|---|\n| Images | {EVIL} |\n".encode(),
        },
    )
    for name, alias in (("lesions", "champion"), (LONG_NAME, None), (LONG_NAME, LONG_NAME[:50])):
        models.register(made.context, Principal("ada", "researcher"), Wanted(name, ids["succeeded"], alias))
    ids["predict"] = made.submit("predict", spec={"model": ids["succeeded"]}, name="inference", dataset_id="new-id")
    predicted = dict(zip(CLASSES, [2, 3, 8, 0, 9, 36, 1], strict=True))
    summary = {"images": 60, "unreadable": 1, "predicted": predicted, "synthetic": True}
    made.finish(made.claim(), summary, {"predictions.csv": b"image_id,error\n"})
    ids["cross_validate"], ids["fold"] = cross_validation(made)
    ids["failed"] = made.submit(name="too large a batch")
    claim = made.claim("gpu-1")
    made.say(claim, 2)
    error = f"CUDA out of memory: tried to allocate 2.31 GiB {EVIL}"
    jobs.fail(made.context.database, claim.lease, "out_of_memory", error)
    ids["cancelled"] = made.submit(name="second thoughts", user="bob")
    jobs.cancel(made.context.database, ids["cancelled"])
    ids["running"] = made.submit(name="BGPANet micro, long run")
    claim = made.claim("gpu-0")
    jobs.resumed(made.context.database, claim.lease, 0)
    made.say(claim, 12)
    for number, job_id in enumerate([ids["running"], None]):
        member = Member(f"gpu-{number}", "node-a", 4000 + number, "0.1.0", "NVIDIA H100 80GB", ["any", "gpu"])
        figures = {"cpu_percent": 37.5, "memory_used": 21_000_000_000, "memory_total": 135_000_000_000}
        weights = Weights("/cache/checkpoints", ["swin_t-704ceda3.pth"], reachable=number == 0)
        fleet.beat(made.context.database, member, job_id, figures, weights)
    ids["queued"] = made.submit(name=EVIL, user="bob")
    return ids


def cross_validation(made: Service, folds: int = 5) -> tuple[str, str]:
    """One that succeeded. Returns its id and its first fold's."""
    spec = {**SPEC, "split": {"folds": folds}}
    job_id, first = made.submit("cross_validate", spec=spec, name=f"{folds}-fold cross-validation"), ""
    parts = []
    for fold in range(folds):
        claim = made.claim()
        first = first or claim.lease.job_id
        made.say(claim, 30, seed=fold)
        made.finish(claim, training_summary(fold))
        truth, probabilities, groups = answers(fold)
        ids = [f"{fold}-{n}" for n in range(len(truth))]
        figures = classification_metrics(truth, probabilities, CLASSES)
        parts.append(FoldPredictions(fold, ids, [f"{fold}-{g}" for g in groups], truth, probabilities, figures))
    summary = {**pool_folds(parts, CLASSES), "classes": CLASSES, "synthetic": True}
    made.finish(made.claim(), summary, {"report.json": b"{}"})
    return job_id, first


def answers(seed: int = 0) -> tuple[Any, Any, list[str]]:
    """Labels (n,), probabilities (n, 7) of a net that is often right, and groups."""
    rng = np.random.default_rng(seed)
    truth = np.repeat(np.arange(len(CLASSES)), [max(3, n // 5) for n in SHARES])
    logits = rng.normal(0, 1, (len(truth), len(CLASSES))) + 1.9 * np.eye(len(CLASSES))[truth]
    logits[:, CLASSES.index("nv")] += 0.7
    odds = np.exp(logits)
    return truth, odds / odds.sum(axis=1, keepdims=True), [f"g{n // 2}" for n in range(len(truth))]


def predictions(made: Service, seed: int = 0) -> bytes:
    """The table of what `answers` holds, as a training leaves it."""
    truth, probabilities, groups = answers(seed)
    ids, named = [f"ISIC_{n:07d}" for n in range(len(truth))], [CLASSES[k] for k in truth]
    folds, errors = [0] * len(ids), [""] * len(ids)
    paths = [made.context.settings.home / f"table.{kind}" for kind in ("csv", "parquet")]
    PredictionTable(CLASSES, ids, groups, folds, named, errors, probabilities).write(*paths)
    return paths[0].read_bytes()


@cache
def training_summary(fold: int = 0) -> dict[str, Any]:
    """As a training stores it."""
    truth, probabilities, groups = answers(fold)
    return {
        **(_brief if fold else _whole)(truth, probabilities, groups),
        "classes": CLASSES,
        "leakage": {"groups": 0, "images": 0, "share": 0.0},
        "split": {
            "unit": "lesion",
            "folds": 5,
            "fold": fold,
            "digest": hashlib.sha256(b"split").hexdigest(),
            "images": {"train": 640, "validation": 160, "test": len(truth)},
        },
        "kept": {
            "epoch": 22,
            "step": 440,
            "monitor": "balanced_accuracy",
            "value": 0.61,
            "loss_weight_focal": 0.733,
        },
        "epochs_run": 30,
        "stopped_early": False,
        "excluded_images": 1,
        "synthetic": True,
    }


def _whole(truth: Any, probabilities: Any, groups: list[str]) -> dict[str, Any]:
    """Everything that is told of a test part."""
    sites = ("back", "face", "")
    attributes = [{"age": str(20 + n % 60), "localization": sites[n % 3]} for n in range(len(truth))]
    validation = answers(100)[:2]
    frozen = fit_temperature(*validation), frozen_thresholds(*validation)
    return evaluate(truth, probabilities, groups, attributes, *frozen, CLASSES)


def _brief(truth: Any, probabilities: Any, groups: list[str]) -> dict[str, Any]:
    """What takes little time to compute."""
    intervals = grouped_intervals(truth, probabilities, groups, resamples=200)
    return {
        "figures": classification_metrics(truth, probabilities, CLASSES),
        "intervals": {name: list(ends) for name, ends in intervals.items()},
    }


def _metrics(epochs: int, of: int, seed: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    rows = []
    total = of * STEPS_PER_EPOCH
    for step in range(1, epochs * STEPS_PER_EPOCH + 1):
        t = step / total
        values = {
            "train_loss": 0.25 + 1.6 * np.exp(-4 * t) + rng.normal(0, 0.05),
            "learning_rate": 1e-3 * min(step / 40, 0.5 * (1 + np.cos(np.pi * t))),
            "loss_weight_ce": 1 - t,
            "loss_weight_focal": t,
        }
        if step % STEPS_PER_EPOCH == 0:
            values["validation_loss"] = 0.7 + 1.2 * np.exp(-4 * t) + rng.normal(0, 0.02)
            values["validation_balanced_accuracy"] = 0.66 - 0.5 * np.exp(-4 * t) + rng.normal(0, 0.01)
            values["validation_accuracy"] = 0.8 - 0.3 * np.exp(-4 * t)
        epoch = (step - 1) // STEPS_PER_EPOCH + 1
        rows += [{"step": step, "epoch": epoch, "name": name, "value": float(v)} for name, v in values.items()]
    return rows
