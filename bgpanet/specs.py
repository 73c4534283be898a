"""What a run is asked to do: frozen, typed, refused whole when wrong.

Every problem of a spec is told at once, as `InvalidInput`. Defaults are the article's recipe where it states one
(AdamW, 180 epochs, cosine after a linear warm-up, patience 20, five folds). Imports no torch.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from bgpanet.catalogue import MODELS, unknown_model
from bgpanet.errors import InvalidInput
from bgpanet.validation import problems_of, unknown

LABEL = re.compile(r"[a-z0-9][a-z0-9_.:=/-]{0,99}")
"""What a worker may be labelled with, such as `room=2`."""


class Spec(BaseModel):
    """Base of all specs: immutable, no unknown fields, no NaN or infinity, no silent conversions."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)


def _label(value: str) -> str:
    if not LABEL.fullmatch(value):
        raise ValueError(f"{value!r} must be 1 to 100 lower-case letters, digits and _.:=/-, a letter or digit first")
    return value


def _from_name(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


class LockSpec(Spec):
    """A part of a data set that no training ever sees, cut by whole groups and stratified by class."""

    share: float = Field(ge=0.05, le=0.5, description="of the data set, about")
    seed: int = Field(0, ge=0)


class DataSpec(Spec):
    """Where the images lie. A service fills it in; on the command line it is part of the file."""

    format: str = Field(description="as `bgpanet dataset formats` lists them, or packed (a registered data set)")
    path: str = Field(description="the data set's folder")
    locked: LockSpec | None = Field(None, description="the part that only `evaluate` with `part: locked` sees")
    holds: Literal["open", "locked"] = Field("open", description="a service hands out the parts of a data set apart")


class SubsetSpec(Spec):
    """A stated, seeded part of a data set, drawn by whole groups."""

    max_groups_per_class: int = Field(ge=1, description="at most so many lesions of each class")
    seed: int = Field(0, ge=0)


class FoldsSpec(Spec):
    """How images are divided. Nothing is ever chosen on the reported (test) part."""

    unit: Literal["lesion", "image"] = Field(
        "lesion", description="lesion: no lesion on both sides of a split; image: leaks, there to reproduce papers"
    )
    folds: int = Field(5, ge=2, le=20, description="number of folds")
    validation_folds: int = Field(
        5, ge=2, le=20, description="the training part is cut into so many by the same rule; one of them validates"
    )
    seed: int = Field(0, ge=0)


class SplitSpec(FoldsSpec):
    """One fold of the division: it is the test part, the others train and validate."""

    fold: int = Field(0, ge=0, description="the test fold, from 0")

    @model_validator(mode="after")
    def _fold_exists(self) -> Self:
        if self.fold >= self.folds:
            raise ValueError(f"fold {self.fold} does not exist among {self.folds}; the last is {self.folds - 1}")
        return self


class ModelSpec(Spec):
    """Which network, and from which weights it starts."""

    name: str = Field("bgpanet", description="see `bgpanet models`", json_schema_extra={"enum": [*MODELS]})
    weights: str | None = Field(None, description='null (random), "imagenet", or the path of a local file')
    weights_sha256: str | None = Field(
        None, pattern="^[0-9a-f]{64}$", description="of a local file: it is refused where its digest is another"
    )
    placement: Literal["stage", "block"] | None = Field(None, description="BGPA after each stage, or each Swin block")
    window_size: int | None = Field(None, ge=1, le=16, description="side of a CDCA window, positions")
    reduction: int | None = Field(None, ge=1, le=256, description="C over the hidden width of the channel prior")
    embedding_ratio: float | None = Field(None, gt=0, le=1, description="width of the CDCA embedding over C")
    spatial_statistics: Literal["prior_weighted", "plain"] | None = None
    branches: Literal["all", "cpa_sar", "cpa"] | None = Field(None, description="of the block; fewer: an ablation")

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.name not in MODELS:
            raise ValueError(unknown_model(self.name))
        entry, problems = MODELS[self.name], []
        if strange := sorted(self.options.keys() - set(entry.options)):
            problems.append(f"{', '.join(strange)}: no option of {self.name}")
        if self.weights == "imagenet" and not entry.imagenet:
            problems.append(f"there are no ImageNet weights for {self.name}; train it from null")
        if self.weights_sha256 is not None and self.weights in (None, "imagenet"):
            problems.append("weights_sha256 is for weights of a local file")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def options(self) -> dict[str, Any]:
        """The block's options that were set."""
        return self.model_dump(exclude={"name", "weights", "weights_sha256"}, exclude_none=True)


ModelName = Annotated[str, Field(json_schema_extra={"enum": [*MODELS]})]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
Schedule = Literal[
    "linear", "cosine", "exponential", "step", "fixed_0.4_0.6", "fixed_0.5_0.5", "fixed_0.6_0.4", "ce", "focal"
]


LossName = Literal["dual_tailed", "weighted_ce", "class_balanced", "ldam_drw", "balanced_softmax", "logit_adjusted"]
LOSS_OPTIONS: dict[str, frozenset[str]] = {
    "dual_tailed": frozenset({"schedule", "gamma"}),
    "weighted_ce": frozenset(),
    "class_balanced": frozenset({"beta"}),
    "ldam_drw": frozenset({"max_margin", "beta", "reweight_from"}),
    "balanced_softmax": frozenset(),
    "logit_adjusted": frozenset({"tau"}),
}


class LossSpec(Spec):
    """Which loss; equations and papers stand in `bgpanet/losses.py`. A name or a schedule alone may stand for it."""

    name: LossName = "dual_tailed"
    schedule: Schedule = Field("linear", description="dual_tailed: the weights of cross-entropy and focal loss")
    gamma: float = Field(2.0, ge=0, le=10, description="dual_tailed: focusing parameter of the focal term")
    beta: float = Field(0.9999, ge=0, lt=1, description="class_balanced, ldam_drw: of the effective number of images")
    max_margin: float = Field(0.5, ge=0, le=10, description="ldam_drw: of the rarest class, logits")
    reweight_from: float = Field(0.8, ge=0, le=1, description="ldam_drw: part of the run after which classes weigh")
    tau: float = Field(1.0, ge=0, le=10, description="logit_adjusted: strength")

    @model_validator(mode="after")
    def _options_fit(self) -> Self:
        set_here = {
            name for name in self.model_fields_set if getattr(self, name) != LossSpec.model_fields[name].default
        }
        if strange := sorted(set_here - LOSS_OPTIONS[self.name] - {"name"}):
            raise ValueError(f"{', '.join(strange)}: no option of the loss {self.name}")
        return self


def _from_loss_name(value: object) -> object:
    if not isinstance(value, str):
        return value
    if value in get_args(Schedule):
        return {"schedule": value}
    if value not in LOSS_OPTIONS:
        raise ValueError(unknown("loss or schedule", value, [*LOSS_OPTIONS, *get_args(Schedule)]))
    return {"name": value}


class AugmentationSpec(Spec):
    """Random changes of training images, drawn for each image."""

    horizontal_flip: float = Field(0.5, ge=0, le=1, description="probability")
    vertical_flip: float = Field(0.5, ge=0, le=1, description="probability")
    brightness: float = Field(0.2, ge=0, le=1, description="factor drawn from [1 - x, 1 + x]")
    contrast: float = Field(0.2, ge=0, le=1, description="factor drawn from [1 - x, 1 + x]")
    saturation: float = Field(0.2, ge=0, le=1, description="factor drawn from [1 - x, 1 + x]")
    hue: float = Field(0.1, ge=0, le=0.5, description="shift drawn from [-x, x], turns of the colour circle")


class TrainingSpec(Spec):
    """The recipe."""

    epochs: int = Field(180, ge=1, le=100_000)
    batch_size: int = Field(32, ge=1, le=65_536, description="images of one optimizer step")
    learning_rate: float = Field(1e-4, gt=0, le=10, description="the peak, reached at the end of the warm-up")
    minimum_learning_rate: float = Field(1e-6, ge=0, description="reached exactly on the last step")
    warmup_epochs: float | None = Field(
        None, ge=0, description="linear warm-up; null: 5 epochs, or a tenth of the run where it is shorter than 50"
    )
    weight_decay: float = Field(0.05, ge=0, le=10)
    patience: int = Field(20, ge=1, description="epochs without improvement of the monitor before stopping early")
    monitor: Literal["balanced_accuracy", "loss"] = Field(
        "balanced_accuracy", description="the validation figure that chooses the kept weights; loss: plain CE"
    )
    precision: Precision = Field("auto", description="auto: bf16 where the device computes in it; fp16 scales the loss")
    micro_batch_size: int | None = Field(
        None, ge=1, description="images that pass the device at once, their gradients added; null: the whole batch"
    )
    clip_norm: float | None = Field(None, gt=0, description="the gradient's norm is held at or below it; null: free")
    ema_decay: float | None = Field(
        None, ge=0, lt=1, description="validate and keep a moving average of the weights with this decay; null: none"
    )
    sampling: Literal["shuffled", "balanced"] = Field(
        "shuffled", description="balanced: every class is drawn as often, with replacement"
    )
    freeze_epochs: float = Field(0.0, ge=0, description="epochs in which only what was not pretrained learns")
    layer_decay: float = Field(1.0, gt=0, le=1, description="each layer's rate over that of the layer above it")
    mixup_alpha: float = Field(0.0, ge=0, le=10, description="images are mixed in pairs, share ~ Beta(x, x); 0: off")
    compile: bool = Field(False, description="compile the network; pays on a GPU in long runs")
    checkpoint_seconds: float = Field(
        60.0, ge=0, description="a checkpoint after the step at which so much time has passed; 0: after every step"
    )
    keep_every_epochs: int | None = Field(
        None, ge=1, description="keep the weights after every so many epochs too; null: only the best of the run"
    )
    seed: int = Field(0, ge=0, le=2**32 - 1, description="of weights, order and augmentation")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problems = []
        if self.minimum_learning_rate > self.learning_rate:
            problems.append("minimum_learning_rate must not exceed learning_rate")
        if self.warmup_epochs is not None and self.warmup_epochs >= self.epochs:
            problems.append(f"warmup_epochs {self.warmup_epochs:g} must be less than epochs {self.epochs}")
        if self.freeze_epochs > self.epochs:
            problems.append(f"freeze_epochs {self.freeze_epochs:g} must not exceed epochs {self.epochs}")
        if self.micro_batch_size is not None and self.micro_batch_size > self.batch_size:
            problems.append(f"micro_batch_size {self.micro_batch_size} must not exceed batch_size {self.batch_size}")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def images_at_once(self) -> int:
        """Images that pass the device at once."""
        return self.micro_batch_size or self.batch_size

    def is_kept(self, epoch: int) -> bool:
        """Whether the weights after so many epochs are kept, whatever comes after."""
        return self.keep_every_epochs is not None and epoch % self.keep_every_epochs == 0

    @property
    def warmup(self) -> float:
        """Length of the warm-up, epochs."""
        return min(5.0, self.epochs / 10) if self.warmup_epochs is None else self.warmup_epochs


class ResourcesSpec(Spec):
    """What a worker must offer."""

    device: Literal["any", "cpu", "gpu"] = "any"
    gpus: int = Field(1, ge=1, le=64, description="GPUs of one host; more than one runs under torchrun")
    memory_gb: float | None = Field(None, gt=0, description="of the device, at least, 10^9 bytes; for a service")
    labels: tuple[Annotated[str, AfterValidator(_label)], ...] = Field(
        (), max_length=20, description="that the worker has, as `bgpanet workers` shows them; for a service"
    )

    @model_validator(mode="after")
    def _on_gpus(self) -> Self:
        if self.gpus > 1 and self.device == "cpu":
            raise ValueError("gpus is for GPUs; device is cpu")
        return self

    @property
    def resource_class(self) -> str:
        """Which workers of a service can have the run: `any`, `cpu`, `gpu`, or `gpu-4` for four GPUs of one host."""
        return self.device if self.gpus == 1 else f"gpu-{self.gpus}"


class RunSpec(Spec):
    """What every run has."""

    data: DataSpec | None = Field(None, description="given on the command line only; a service knows its data sets")
    resources: ResourcesSpec = ResourcesSpec()


class LearningSpec(RunSpec):
    """What training and cross-validation share."""

    model: Annotated[ModelSpec, BeforeValidator(_from_name, json_schema_input_type=ModelName | ModelSpec)] = ModelSpec()
    image_size: int | None = Field(None, ge=32, le=1024, description="pixels; null: what the model is meant for")
    subset: SubsetSpec | None = None
    loss: Annotated[
        LossSpec, BeforeValidator(_from_loss_name, json_schema_input_type=LossName | Schedule | LossSpec)
    ] = LossSpec()
    augmentation: AugmentationSpec = AugmentationSpec()
    training: TrainingSpec = TrainingSpec()

    @model_validator(mode="after")
    def _size_fits(self) -> Self:
        least, most = MODELS[self.model.name].sizes
        if not least <= self.input_size <= most:
            allowed = f"exactly {least}" if least == most else f"from {least} to {most}"
            raise ValueError(f"image_size {self.input_size}: {self.model.name} takes images of {allowed} pixels")
        return self

    @property
    def input_size(self) -> int:
        """Side of the square input, pixels."""
        return self.image_size or MODELS[self.model.name].image_size


class TrainSpec(LearningSpec):
    """Train on one split; report on its test part."""

    split: SplitSpec = SplitSpec()


class CrossValidateSpec(LearningSpec):
    """Train once for each fold; report each and all together."""

    split: FoldsSpec = FoldsSpec()

    def fold(self, fold: int) -> TrainSpec:
        """The training of one fold."""
        split = SplitSpec(**self.split.model_dump(), fold=fold)
        return TrainSpec(**{name: getattr(self, name) for name in LearningSpec.model_fields}, split=split)


class VariantSpec(Spec):
    """One row of a study: what it changes of the study's own spec."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._+()/-]{0,59}$")
    set: dict[str, Any] = Field(
        default_factory=dict,
        description="fields of the spec; model and loss replace, groups such as training are changed field by field",
    )


@dataclass(frozen=True)
class Cell:
    """One training of a study."""

    variant: str
    seed: int
    fold: int
    spec: TrainSpec


MOST_CELLS = 2000


class StudySpec(LearningSpec):
    """Train every variant with every seed on every fold, and test each variant against the reference."""

    split: FoldsSpec = FoldsSpec()
    variants: tuple[VariantSpec, ...] = Field(min_length=2, max_length=64)
    reference: str = Field(description="name of the variant that the others are tested against")
    seeds: tuple[int, ...] = Field((0,), min_length=1, max_length=20, description="of weights, order and augmentation")

    @model_validator(mode="after")
    def _sound(self) -> Self:
        names = [variant.name for variant in self.variants]
        problems = [f"variant {name!r} stands twice" for name in sorted({n for n in names if names.count(n) > 1})]
        if self.reference not in names:
            problems.append(f"reference {self.reference!r} is none of the variants: {', '.join(names)}")
        if len(set(self.seeds)) < len(self.seeds):
            problems.append("a seed stands twice")
        cells = len(names) * len(self.seeds) * self.split.folds
        if cells > MOST_CELLS:
            problems.append(f"{cells} trainings are more than {MOST_CELLS}; split the study")
        for variant in self.variants:
            if shared := sorted(variant.set.keys() & {"split", "data", "resources", "subset", "image_size"}):
                problems.append(f"variant {variant.name!r} may not set {', '.join(shared)}: all see the same images")
            try:
                self._training(variant, self.seeds[0], 0)
            except ValidationError as error:
                problems += [f"variant {variant.name!r}: {problem}" for problem in problems_of(error, model=TrainSpec)]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def cells(self) -> list[Cell]:
        """All trainings: seed after seed, fold after fold, so that variants can be compared early."""
        return [
            Cell(variant.name, seed, fold, self._training(variant, seed, fold))
            for seed in self.seeds
            for fold in range(self.split.folds)
            for variant in self.variants
        ]

    def _training(self, variant: VariantSpec, seed: int, fold: int) -> TrainSpec:
        values = self.model_dump(mode="json", include=set(LearningSpec.model_fields), exclude_unset=True)
        for name, change in variant.set.items():
            merges = isinstance(change, dict) and name not in ("model", "loss")
            values[name] = {**values.get(name, {}), **change} if merges else change
        values["training"] = {**values.get("training", {}), "seed": seed}
        values["split"] = {**self.split.model_dump(mode="json"), "fold": fold}
        return TrainSpec.model_validate_json(json.dumps(values))


class AppliedSpec(RunSpec):
    """What runs that apply a trained model share."""

    model: str = Field(
        min_length=1,
        description="a registered model (NAME, NAME@3 or NAME@alias) or the id of a finished job; "
        "on the command line the folder of its results",
    )


class InferenceSpec(AppliedSpec):
    """What runs that answer for whole data sets share."""

    batch_size: int = Field(64, ge=1, le=65_536)
    precision: Precision = "auto"


class ShardSpec(Spec):
    """Some of a data set's images: positions in its order, which is that of image ids."""

    first: int = Field(ge=0)
    count: int = Field(ge=1)


SHARD_IMAGES = {"cpu": 2_000, "any": 20_000, "gpu": 20_000}
"""Images of a shard where a spec names none: minutes of a full-size network on such a device."""


class PredictSpec(InferenceSpec):
    """Apply a trained model, or the folds of a cross-validation together, to the images of a data set."""

    shard: ShardSpec | None = Field(None, description="only these images; null: all")
    shard_images: int | None = Field(
        None,
        ge=1,
        description="a service runs larger data sets in shards of so many images, rounded up to whole batches; "
        "null: 2,000 for a CPU, and where no worker has anything else, else 20,000",
    )

    def shards(self, images: int, on_cpus: bool = False) -> list["PredictSpec"]:
        """The runs into which a service cuts this one over so many images: none where one run does it.

        on_cpus: whoever takes it, there is no other device. Cuts fall between batches, so that every image is computed
        with the same others as in one run.
        """
        wanted = self.shard_images or SHARD_IMAGES["cpu" if on_cpus else self.resources.device]
        size = -(-wanted // self.batch_size) * self.batch_size
        if self.shard is not None or images <= size:
            return []
        parts = [ShardSpec(first=first, count=min(size, images - first)) for first in range(0, images, size)]
        return [self.model_copy(update={"shard": part}) for part in parts]


class EvaluateSpec(InferenceSpec):
    """Figures of a trained model on labelled images that had no part in its training."""

    part: Literal["open", "locked"] = Field(
        "open", description="open: all that a training on the data set could see; locked: what none ever sees"
    )


MOST_EXPLAINED = 200


class ExplainSpec(AppliedSpec):
    """Show what a trained model looked at in some images of a data set."""

    images: tuple[str, ...] | None = Field(
        None, min_length=1, max_length=MOST_EXPLAINED, description="image ids; null: `count` images drawn by `seed`"
    )
    count: int = Field(12, ge=1, le=MOST_EXPLAINED, description="how many readable images are drawn")
    seed: int = Field(0, ge=0, le=2**32 - 1, description="of the draw, and of the random weights to compare with")
    methods: tuple[Literal["grad_cam", "spatial", "received"], ...] | None = Field(
        None,
        min_length=1,
        description="Grad-CAM; a BGPA block's M_s; what positions receive of its window attention; null: all there are",
    )
    explained: str | None = Field(None, description="the class that Grad-CAM explains; null: the predicted one")
    stage: int | None = Field(
        None,
        ge=1,
        le=4,
        description="of Swin and all that is built on it: what Grad-CAM looks at; null: the last layer",
    )
    batch_size: int = Field(16, ge=1, le=1024)

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        for name in ("images", "methods"):
            values = getattr(self, name) or ()
            if doubled := sorted({value for value in values if values.count(value) > 1}):
                raise ValueError(f"{name}: {', '.join(doubled)} stand twice")
        return self


class SourceSpec(Spec):
    """Where a service finds the files of a data set: exactly one of folder, s3 and upload."""

    format: str = Field(description="as in `data`")
    folder: str | None = Field(None, description="a folder that the worker sees")
    s3: str | None = Field(None, description="s3://bucket/prefix, of a bucket that the service may read")
    upload: str | None = Field(None, description="id of a complete upload")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(place is not None for place in (self.folder, self.s3, self.upload)) != 1:
            raise ValueError("name exactly one of folder, s3 and upload")
        return self


class RegisterSpec(RunSpec):
    """Check a data set and pack it. `data` may name a folder, or a zip or tar file of it."""

    source: SourceSpec | None = Field(None, description="given by a service only; the command line has `data`")
    others: dict[str, str] = Field(
        default_factory=dict,
        description="fingerprint files of other data sets by name: shared images are told",
    )
    licence: str | None = Field(None, max_length=2000, description="null: what the files say of it")
    citation: str | None = Field(None, max_length=2000, description="null: what the files say of it")
    locked: LockSpec | None = Field(None, description="a part that no training ever sees; null: none")


class ExportSpec(AppliedSpec):
    """Write a trained model as ONNX, and compare its answers with the model's own."""

    bound: float = Field(1e-4, gt=0, le=1e-2, description="most by which a probability may differ")


class ImportSpec(RunSpec):
    """Check a trained model that comes from elsewhere."""

    source: str = Field(min_length=1, description="a zip or a folder; a service's: id of a complete upload")
    name: str = Field("", description="what it was called where it comes from")
    note: str | None = Field(None, max_length=2000)


MOST_TRIED = 16


class TriedImageSpec(Spec):
    """One image of a trial."""

    name: str = Field(max_length=200)
    file: str = Field(min_length=1, description="where it lies; a service's: its key in the store")
    sha256: str = Field("", pattern="^([0-9a-f]{64})?$")


class TrialSpec(AppliedSpec):
    """Try a trained model on a few images."""

    images: tuple[TriedImageSpec, ...] = Field(min_length=1, max_length=MOST_TRIED)
    overlays: bool = Field(False, description="show what it looked at")
    explained: str | None = Field(None, description="the class that overlays explain; null: the predicted one")


JobSpec = TrainSpec | CrossValidateSpec | StudySpec | PredictSpec | EvaluateSpec | ExplainSpec
OwnSpec = RegisterSpec | ExportSpec | ImportSpec | TrialSpec
"""Runs that a service makes for something else that it was asked for."""
AnySpec = JobSpec | OwnSpec
Kind = Literal["train", "cross_validate", "study", "predict", "evaluate", "explain"]
SPECS: dict[str, type[AnySpec]] = {
    "train": TrainSpec,
    "cross_validate": CrossValidateSpec,
    "study": StudySpec,
    "predict": PredictSpec,
    "evaluate": EvaluateSpec,
    "explain": ExplainSpec,
    "register": RegisterSpec,
    "export": ExportSpec,
    "import": ImportSpec,
    "trial": TrialSpec,
}


def half_at_once(spec: AnySpec) -> int | None:
    """Half the images that pass the device at once, for another try of a run that ran out of memory.

    None where it can't be less, or would be another run: one image, batch normalisation, a run that pools others.
    """
    if isinstance(spec, InferenceSpec | ExplainSpec):
        return spec.batch_size // 2 or None
    if isinstance(spec, TrainSpec) and not MODELS[spec.model.name].batch_norm:
        return spec.training.images_at_once // 2 or None
    return None


def limited_at_once(spec: AnySpec, images: int) -> AnySpec:
    """The same run with so many images at a time on the device; a training's effective batch stays."""
    if isinstance(spec, InferenceSpec | ExplainSpec):
        return spec.model_copy(update={"batch_size": images})
    if isinstance(spec, TrainSpec):
        return spec.model_copy(update={"training": spec.training.model_copy(update={"micro_batch_size": images})})
    return spec


def parse_spec(kind: str, values: Mapping[str, Any], where: str = "spec") -> AnySpec:
    """The spec of a run of `kind`.

    Raises:
        InvalidInput: with every problem, each at its field (`spec.training.epochs`).
    """
    if kind not in SPECS:
        raise InvalidInput.one("kind", unknown("kind", kind, [*SPECS]))
    try:
        # Through JSON, so that a spec means the same in a request, a file and a database.
        return SPECS[kind].model_validate_json(json.dumps(values))
    except ValidationError as error:
        raise InvalidInput(problems_of(error, where, SPECS[kind])) from None
    except (TypeError, ValueError) as error:
        raise InvalidInput.one(where, f"is not plain data: {error}") from None


class _Yaml(yaml.SafeLoader):
    """YAML whose numbers are those of JSON too: `1e-3` is a number, which YAML 1.1 takes for text."""


_Yaml.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+"), list("-+0123456789")
)


def parse_yaml(text: str) -> Any:
    """The plain data that a YAML or JSON text stands for. Raises yaml.YAMLError."""
    return yaml.load(text, _Yaml)  # noqa: S506 - a safe loader


def read_spec(kind: str, path: Path) -> AnySpec:
    """The spec in a YAML or JSON file. Raises InvalidInput."""
    try:
        values = parse_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInput.one(str(path), f"cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidInput.one(str(path), f"is neither YAML nor JSON: {error}") from None
    if not isinstance(values, dict):
        raise InvalidInput.one(str(path), "must hold a mapping of fields")
    return parse_spec(kind, values, where=path.name)
