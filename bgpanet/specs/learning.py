"""Runs that train: one training, a cross-validation, a study of variants, seeds and folds."""

import json
from dataclasses import dataclass
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from bgpanet.catalogue import MODELS
from bgpanet.specs.base import RunSpec, Spec
from bgpanet.specs.division import FoldsSpec, SplitSpec, SubsetSpec
from bgpanet.specs.recipe import (
    AugmentationSpec,
    LossName,
    LossSpec,
    ModelName,
    ModelSpec,
    Schedule,
    TrainingSpec,
    from_loss_name,
    from_name,
)
from bgpanet.validation import problems_of


class LearningSpec(RunSpec):
    """What training and cross-validation share."""

    model: Annotated[ModelSpec, BeforeValidator(from_name, json_schema_input_type=ModelName | ModelSpec)] = ModelSpec()
    image_size: int | None = Field(None, ge=32, le=1024, description="pixels; null: what the model is meant for")
    subset: SubsetSpec | None = None
    loss: Annotated[
        LossSpec, BeforeValidator(from_loss_name, json_schema_input_type=LossName | Schedule | LossSpec)
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
