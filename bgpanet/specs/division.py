"""How a data set is divided: folds of whole lesions, one of them as the test part, and stated parts of it."""

from typing import Literal, Self

from pydantic import Field, model_validator

from bgpanet.specs.base import Spec


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
