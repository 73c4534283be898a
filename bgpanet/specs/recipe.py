"""The recipe of a training: network, loss, augmentation, optimisation.

Defaults are the article's where it states one (AdamW, 180 epochs, cosine after a linear warm-up, patience 20).
"""

from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, model_validator

from bgpanet.catalogue import MODELS, unknown_model
from bgpanet.specs.base import Precision, Spec
from bgpanet.validation import unknown


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


def from_name(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


ModelName = Annotated[str, Field(json_schema_extra={"enum": [*MODELS]})]

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


def from_loss_name(value: object) -> object:
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
