"""Runs that apply a trained model: batch inference, evaluation, explanation, export, a trial of a few images."""

from typing import Literal, Self

from pydantic import Field, model_validator

from bgpanet.specs.base import Precision, RunSpec, Spec


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


class ExportSpec(AppliedSpec):
    """Write a trained model as ONNX, and compare its answers with the model's own."""

    bound: float = Field(1e-4, gt=0, le=1e-2, description="most by which a probability may differ")


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
