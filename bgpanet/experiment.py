"""A training from its spec to its report, and a cross-validation out of such trainings.

    train:           read → divide → fit → evaluate on the test part → write
    cross_validate:  train each fold that is not done yet → pool what they predicted → write

What is reported is never what was chosen by: weights are kept by the validation part, figures come from the test part.
Both functions go on from what an earlier, interrupted call left in the output folder.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from bgpanet.bundles import CARD, WEIGHTS, Frozen, ModelCard, save_bundle
from bgpanet.catalogue import MODELS
from bgpanet.compute import Compute, choose_compute
from bgpanet.data.index import Index
from bgpanet.data.pixels import PixelCache, open_pixels
from bgpanet.data.readers import read
from bgpanet.data.sources import describe
from bgpanet.data.splits import Leakage, Split, leakage, lock, make_split, subset
from bgpanet.errors import Interrupted, InvalidInput
from bgpanet.evaluation.calibration import fit_temperature
from bgpanet.evaluation.operating import frozen_thresholds
from bgpanet.evaluation.pooling import FoldPredictions, pool_folds
from bgpanet.evaluation.predictions import PredictionTable
from bgpanet.evaluation.summary import evaluate, evaluate_pooled
from bgpanet.events import ArtifactWritten, Event, Log, Progress, Report, Result
from bgpanet.inference import softmax
from bgpanet.losses import build_loss
from bgpanet.models import build_model
from bgpanet.models.zoo import check_weights, top_of
from bgpanet.provenance import environment, fingerprint, written_at
from bgpanet.report import pictures
from bgpanet.report.gallery import GALLERY, Picture
from bgpanet.report.pages import Material
from bgpanet.report.publish import MODEL_CARD, PAGE, attempt, pictures_of_folds, publish_run
from bgpanet.specs import CrossValidateSpec, DataSpec, RunSpec, TrainSpec
from bgpanet.training.checkpoints import saved_compute
from bgpanet.training.distributed import ALONE, Processes, infer_together
from bgpanet.training.fit import Fitted, fit
from bgpanet.training.task import Task, steps_per_epoch

REPORT, VALIDATION, SPLIT = "report.json", "validation_predictions", "split.json"
MEDIA_TYPES = {
    ".json": "application/json",
    ".csv": "text/csv",
    ".html": "text/html",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".md": "text/markdown",
    ".tex": "text/x-tex",
    ".parquet": "application/vnd.apache.parquet",
    ".safetensors": "application/octet-stream",
    ".onnx": "application/octet-stream",
}


@dataclass(frozen=True)
class Workplace:
    """Where a run writes, and how it speaks and listens.

    output: its own folder; cache: decoded pixels, shared by all runs; threads: of a CPU, None for all cores;
    cache_limit: of the cache, in bytes, None for none. processes: those of this run; the leading one alone writes.
    """

    output: Path
    cache: Path
    report: Report
    stop: Callable[[], bool] = lambda: False
    threads: int | None = None
    cache_limit: int | None = None
    processes: Processes = ALONE

    def decoding(self, done: int, total: int) -> None:
        """Progress of reading images; they are decoded once, so it is a small part of a run."""
        if self.stop():
            raise Interrupted("stopped while reading images; nothing is lost")
        self.report(Progress(fraction=0.0, message=f"reading images, {done} of {total}"))

    def warn(self, message: str) -> None:
        """Tells of something that costs nothing but itself."""
        self.report(Log(level="warning", message=message))

    def hand_in(self, path: Path) -> None:
        """Announces a file of the result."""
        self.report(ArtifactWritten(name=path.name, path=str(path), media_type=MEDIA_TYPES[path.suffix]))


def train(spec: TrainSpec, place: Workplace) -> dict[str, Any]:
    """Trains on one split. Returns the summary, which is also reported as `Result`; processes that do not lead, {}.

    Writes `report.json`, `predictions.csv`, `predictions.parquet`, `validation_predictions.parquet` (by which nothing
    that is reported was chosen but weights, temperature and thresholds), `split.json` (which image was in which part),
    `model.safetensors`, `model.json`, and for people `report.html`, `model_card.md` and `gallery.json`.

    Raises:
        BGPANetError: as its kinds say.
    """
    if not (place.output / REPORT).is_file():
        check_weights([spec.model])
    index = read_data(spec)
    with place.processes.first_alone():
        pixels = open_pixels(index, spec.input_size, place.cache, progress=place.decoding, limit=place.cache_limit)
    split = divide(spec, index, pixels)
    identity = fingerprint({"spec": _meaning(spec), "data": index.digest, "split": split.digest(index)})
    if (finished := _finished(place, identity)) is not None:
        return finished
    compute = _compute(spec, place)
    compute.activate()
    with place.processes.first_alone():  # weights may have to be fetched
        task = _task(spec, place, index, pixels, split, compute, identity)
    place.report(Log(message=_opening(task, split, compute)))
    fitted = fit(task, place.output / "checkpoints", place.report, place.stop)
    task.model.load_state_dict(fitted.weights)
    probabilities = {
        name: softmax(
            infer_together(place.processes, task.model, pixels.pixels, part, spec.training.images_at_once, compute)
        )
        for name, part in {"validation": split.validation, "test": split.test}.items()
    }
    summary = {}
    if place.processes.leads:
        draw = partial(pictures.draw, task.model, spec.model.name, pixels.pixels, split.test)
        summary = _conclude(spec, place, index, pixels, split, fitted, probabilities, identity, compute, draw)
    place.processes.wait()
    return summary


def cross_validate(spec: CrossValidateSpec, place: Workplace) -> dict[str, Any]:
    """Trains every fold whose report is not there yet, one after the other, then pools. Returns the summary.

    Writes `report.json`, `predictions.csv`, `predictions.parquet`, `report.html` and `model_card.md`; each fold's own
    files lie in `fold-<n>/`.
    """
    folds = range(spec.split.folds)
    index = read_data(spec)
    for fold in folds:
        folder = place.output / f"fold-{fold}"
        if not is_done(folder / REPORT, spec.fold(fold), index.digest):
            train(spec.fold(fold), part_of(place, folder, fold, len(folds), f"fold {fold + 1} of {len(folds)}"))
    if not place.processes.leads:
        return {}
    reports = [json.loads((place.output / f"fold-{n}" / REPORT).read_text(encoding="utf-8")) for n in folds]
    tables = [PredictionTable.read(place.output / f"fold-{n}" / "predictions.parquet") for n in folds]
    classes = reports[0]["classes"]
    parts = [_fold_predictions(n, tables[n], reports[n]) for n in folds]
    table = PredictionTable.concatenate(tables)
    attributes = {record.image_id: record.attributes for record in index.records}
    summary = {
        **pool_folds(parts, classes),
        **evaluate_pooled(
            table.truth_labels(),
            [part.probabilities.astype(np.float64) for part in tables],
            table.groups,
            [attributes[image_id] for image_id in table.image_ids],
            reports,
        ),
        "classes": classes,
        "synthetic": reports[0]["synthetic"],
    }
    provenance = {"spec": spec.model_dump(mode="json", exclude={"data"}), "environment": environment()}
    told = ("split", "kept", "images_at_once", "figures")
    folds_told = [{name: report.get(name) for name in told} for report in reports]
    report = {
        **summary, "kind": "cross_validate", "fold_reports": folds_told, "data": describe(index),
        "written_at": written_at(), **provenance,
    }  # fmt: skip
    shown = pictures_of_folds([place.output / f"fold-{n}" for n in folds], place.warn)
    _publish(place, Material(report, table, shown, reports))
    write_results(place, report, table)
    place.report(Result(summary=summary))
    return summary


# ── Stages ────────────────────────────────────────────────────────────────────────────────────────────────────────


def read_data(spec: RunSpec, part: Literal["open", "locked"] = "open") -> Index:
    """The index of the spec's data, without its locked part; or of that part alone. Raises InvalidInput."""
    if not isinstance(spec.data, DataSpec):
        raise InvalidInput.one("data", "is missing: name `format` and `path`")
    index = read(spec.data.format, Path(spec.data.path))
    if spec.data.locked is None:
        if part != spec.data.holds:
            raise InvalidInput.one("data.locked", "is missing: there is no locked part to evaluate on")
        return index
    opened, locked = lock(index, spec.data.locked.share, spec.data.locked.seed)
    return locked if part == "locked" else opened


def divide(spec: TrainSpec, index: Index, pixels: PixelCache) -> Split:
    """The split of the usable images: labelled, readable, and of the subset if one is asked for."""
    usable = np.array(
        [n for n, label in enumerate(index.labels) if label >= 0 and n not in pixels.errors], dtype=np.int64
    )
    if len(usable) == 0:
        raise InvalidInput.one("data", "has no image that is both labelled and readable")
    if spec.subset is not None:
        chosen = subset(index.labels[usable], index.groups[usable], spec.subset.max_groups_per_class, spec.subset.seed)
        usable = usable[chosen]
    return make_split(
        index,
        usable,
        unit=spec.split.unit,
        folds=spec.split.folds,
        fold=spec.split.fold,
        validation_folds=spec.split.validation_folds,
        seed=spec.split.seed,
    )


def _compute(spec: TrainSpec, place: Workplace) -> Compute:
    begun = saved_compute(place.output / "checkpoints")
    count = place.processes.count
    if begun is None:
        return choose_compute(spec.training.precision, place.threads, count)
    threads = begun["threads"] if begun["processes"] == count else place.threads
    return choose_compute(begun["precision"], threads, count)


def _task(
    spec: TrainSpec,
    place: Workplace,
    index: Index,
    pixels: PixelCache,
    split: Split,
    compute: Compute,
    identity: str,
) -> Task:
    torch.manual_seed(spec.training.seed)
    source = {"weights": spec.model.weights, "weights_sha256": spec.model.weights_sha256}
    model = build_model(spec.model.name, len(index.classes), **source, **spec.model.options)
    steps = steps_per_epoch(len(split.train), spec.training) * spec.training.epochs
    counts = np.bincount(index.labels[split.train], minlength=len(index.classes)).tolist()
    loss = build_loss(spec.loss, steps, counts)
    return Task(
        model=model.to(compute.device),
        loss=loss.to(compute.device),
        pixels=pixels.pixels,
        labels=index.labels,
        train=split.train,
        validation=split.validation,
        training=spec.training,
        augmentation=spec.augmentation,
        compute=compute,
        fingerprint=identity,
        top=top_of(spec.model.name),
        processes=place.processes,
    )


def _conclude(
    spec: TrainSpec,
    place: Workplace,
    index: Index,
    pixels: PixelCache,
    split: Split,
    fitted: Fitted,
    probabilities: dict[str, np.ndarray],
    identity: str,
    compute: Compute,
    draw: Callable[[PredictionTable], list[Picture]],
) -> dict[str, Any]:
    state = fitted.state
    kept = {
        "epoch": state.best_epoch,
        "step": state.best_step,
        "monitor": spec.training.monitor,
        "value": state.best_value,
        "loss_weight_focal": state.best_loss_weight_focal,
    }
    validated = index.labels[split.validation], probabilities["validation"]
    frozen = Frozen(temperature=fit_temperature(*validated), thresholds=tuple(frozen_thresholds(*validated)))
    summary = {
        **evaluate(
            index.labels[split.test],
            probabilities["test"],
            index.groups[split.test].tolist(),
            [index.records[position].attributes for position in split.test],
            frozen.temperature,
            frozen.thresholds,
            index.classes,
        ),
        "classes": list(index.classes),
        "leakage": asdict(_leakage(index, split)),
        "split": _describe(spec, index, split),
        "kept": kept,
        "epochs_run": state.epoch,
        "stopped_early": state.stopped_early,
        "excluded_images": len(pixels.errors),
        "synthetic": index.synthetic,
    }
    card = ModelCard(
        model=spec.model,
        classes=index.classes,
        image_size=spec.input_size,
        dataset_digest=index.digest,
        split_digest=split.digest(index),
        synthetic=index.synthetic,
        kept=kept,
        frozen=frozen,
    )
    place.hand_in(_write_split(place.output, index, split))
    for path in save_bundle(place.output, card, fitted.weights):
        place.hand_in(path)
    details = {
        "kind": "train",
        "fingerprint": identity,
        "spec": _meaning(spec),
        "dataset_digest": index.digest,
        "data": describe(index),
        "class_counts": {
            name: np.bincount(index.labels[part], minlength=len(index.classes)).tolist()
            for name, part in vars(split).items()
        },
        "curves": state.curves,
        "environment": {**environment(), **compute.describe()},
        "images_at_once": [{"after_step": step, "images": images} for step, images in state.images_at_once],
        "processes": state.processes,
        "devices": state.devices,
        "written_at": written_at(),
        "findings": [asdict(finding) for finding in index.findings],
        "unreadable": {index.records[n].image_id: why for n, why in pixels.errors.items()},
    }
    validation = PredictionTable.of(index, split.validation, probabilities["validation"])
    validation.write(place.output / f"{VALIDATION}.csv", place.output / f"{VALIDATION}.parquet")
    place.hand_in(place.output / f"{VALIDATION}.parquet")
    table = PredictionTable.of(index, split.test, probabilities["test"], fold=spec.split.fold)
    report = {**summary, **details}
    shown = attempt(lambda: draw(table), "the report has no pictures", place.warn)
    _publish(place, Material(report, table, shown or []))
    write_results(place, report, table)
    place.report(Result(summary=summary))
    return summary


def _leakage(index: Index, split: Split) -> Leakage:
    return leakage(index.groups, np.concatenate([split.train, split.validation]), split.test)


def _describe(spec: TrainSpec, index: Index, split: Split) -> dict[str, Any]:
    parts = {"train": split.train, "validation": split.validation, "test": split.test}
    return {
        "unit": spec.split.unit,
        "folds": spec.split.folds,
        "fold": spec.split.fold,
        "digest": split.digest(index),
        "images": {name: len(part) for name, part in parts.items()},
        "groups": {name: len(set(index.groups[part])) for name, part in parts.items()},
        "group_unit": index.group_unit,
    }


def _write_split(output: Path, index: Index, split: Split) -> Path:
    """Which image was in which part: by id, content and group."""
    parts = {
        name: [[record.image_id, record.sha256, record.group] for record in (index.records[n] for n in positions)]
        for name, positions in vars(split).items()
    }
    output.mkdir(parents=True, exist_ok=True)
    path = output / SPLIT
    path.write_text(json.dumps({"digest": split.digest(index), "parts": parts}), encoding="utf-8")
    return path


def _publish(place: Workplace, material: Material) -> None:
    """What people read; see `bgpanet.report.publish` for what happens where it cannot be made."""
    for path in publish_run(material, place.output, place.warn):
        place.hand_in(path)


def write_results(place: Workplace, report: dict[str, Any], table: PredictionTable) -> None:
    """The report last: where it stands, the run is done."""
    place.output.mkdir(parents=True, exist_ok=True)
    csv, parquet = place.output / "predictions.csv", place.output / "predictions.parquet"
    table.write(csv, parquet)
    partial = place.output / f".{REPORT}"
    partial.write_text(json.dumps(report, indent=2), encoding="utf-8")
    path = partial.rename(place.output / REPORT)
    for file in (csv, parquet, path):
        place.hand_in(file)


def _finished(place: Workplace, identity: str) -> dict[str, Any] | None:
    """The summary of an earlier call that came to its end here, its files announced again."""
    path = place.output / REPORT
    if not path.is_file():
        return None
    report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if report.get("fingerprint") != identity:
        raise InvalidInput.one(str(path), "is the report of another run; take an empty output folder")
    summary = {name: report[name] for name in SUMMARY}
    for name in (SPLIT, WEIGHTS, CARD, f"{VALIDATION}.parquet", "predictions.csv", "predictions.parquet", REPORT):
        place.hand_in(place.output / name)
    for name in (GALLERY, PAGE, MODEL_CARD):
        if (place.output / name).is_file():  # an older version made none
            place.hand_in(place.output / name)
    place.report(Result(summary=summary))
    return summary


SUMMARY = (
    "figures",
    "intervals",
    "class_intervals",
    "calibration",
    "operating_points",
    "subgroups",
    "classes",
    "leakage",
    "split",
    "kept",
    "epochs_run",
    "stopped_early",
    "excluded_images",
    "synthetic",
)


def _meaning(spec: TrainSpec) -> dict[str, Any]:
    """The part of a spec that decides the result: where the data lies, who computes and what is kept does not.

    Nor does how many images pass the device at once, but for rounding and for what layers draw: gradients are added up
    to that of the whole batch. Only batch normalisation is another one then. A report tells it (`images_at_once`).
    """
    values = spec.model_dump(mode="json", exclude={"data", "resources"})
    for name in ("checkpoint_seconds", "keep_every_epochs"):
        del values["training"][name]
    if not MODELS[spec.model.name].batch_norm:
        del values["training"]["micro_batch_size"]
    return values


def _opening(task: Task, split: Split, compute: Compute) -> str:
    sizes = f"{len(split.train)} images to train, {len(split.validation)} to validate, {len(split.test)} to test"
    where = "{device}, {precision}, {threads} threads".format(**compute.describe())
    where += f", {compute.processes} processes" if compute.processes > 1 else ""
    return f"{sizes}; {task.total_steps} steps on {where}"


# ── Folds ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def part_of(place: Workplace, folder: Path, number: int, parts: int, name: str) -> Workplace:
    """The workplace of one training among several: its progress is a part of theirs, and its files stay in `folder`."""

    def report(event: Event) -> None:
        if isinstance(event, Progress):
            values = {"fraction": (number + event.fraction) / parts, "message": f"{name}: {event.message}"}
            place.report(event.model_copy(update={**values, "eta_seconds": None}))
        elif isinstance(event, Log):
            place.report(event)

    return replace(place, output=folder, report=report)


def is_done(path: Path, spec: TrainSpec, dataset_digest: str) -> bool:
    """Whether a training has its report. Raises InvalidInput where that is of another training."""
    if not path.is_file():
        return False
    report = json.loads(path.read_text(encoding="utf-8"))
    if (report["spec"], report["dataset_digest"]) != (_meaning(spec), dataset_digest):
        raise InvalidInput.one(str(path), "is the report of another run; take an empty output folder")
    return True


def _fold_predictions(fold: int, table: PredictionTable, report: dict[str, Any]) -> FoldPredictions:
    return FoldPredictions(
        fold=fold,
        image_ids=table.image_ids,
        groups=table.groups,
        y_true=table.truth_labels(),
        probabilities=table.probabilities,
        figures=report["figures"],
    )
