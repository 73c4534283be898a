"""What a run is asked to do: frozen, typed, refused whole when wrong.

Every problem of a spec is told at once, as `InvalidInput`. Imports no torch.
"""

from bgpanet.specs.applying import (
    MOST_EXPLAINED,
    MOST_TRIED,
    AppliedSpec,
    EvaluateSpec,
    ExplainSpec,
    ExportSpec,
    InferenceSpec,
    PredictSpec,
    ShardSpec,
    TrialSpec,
    TriedImageSpec,
)
from bgpanet.specs.base import LABEL, DataSpec, LockSpec, Precision, ResourcesSpec, RunSpec, Spec
from bgpanet.specs.division import FoldsSpec, SplitSpec, SubsetSpec
from bgpanet.specs.learning import Cell, CrossValidateSpec, LearningSpec, StudySpec, TrainSpec, VariantSpec
from bgpanet.specs.memory import half_at_once, limited_at_once
from bgpanet.specs.reading import SPECS, AnySpec, JobSpec, Kind, OwnSpec, parse_spec, parse_yaml, read_spec
from bgpanet.specs.recipe import LOSS_OPTIONS, AugmentationSpec, LossName, LossSpec, ModelSpec, Schedule, TrainingSpec
from bgpanet.specs.taking import ImportSpec, RegisterSpec, SourceSpec

__all__ = [
    "LABEL",
    "LOSS_OPTIONS",
    "MOST_EXPLAINED",
    "MOST_TRIED",
    "SPECS",
    "AnySpec",
    "AppliedSpec",
    "AugmentationSpec",
    "Cell",
    "CrossValidateSpec",
    "DataSpec",
    "EvaluateSpec",
    "ExplainSpec",
    "ExportSpec",
    "FoldsSpec",
    "ImportSpec",
    "InferenceSpec",
    "JobSpec",
    "Kind",
    "LearningSpec",
    "LockSpec",
    "LossName",
    "LossSpec",
    "ModelSpec",
    "OwnSpec",
    "Precision",
    "PredictSpec",
    "RegisterSpec",
    "ResourcesSpec",
    "RunSpec",
    "Schedule",
    "ShardSpec",
    "SourceSpec",
    "Spec",
    "SplitSpec",
    "StudySpec",
    "SubsetSpec",
    "TrainSpec",
    "TrainingSpec",
    "TrialSpec",
    "TriedImageSpec",
    "VariantSpec",
    "half_at_once",
    "limited_at_once",
    "parse_spec",
    "parse_yaml",
    "read_spec",
]
