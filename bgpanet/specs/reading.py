"""Every kind of run, and its spec out of plain data or a file."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import ValidationError

from bgpanet.errors import InvalidInput
from bgpanet.specs.applying import EvaluateSpec, ExplainSpec, ExportSpec, PredictSpec, TrialSpec
from bgpanet.specs.learning import CrossValidateSpec, StudySpec, TrainSpec
from bgpanet.specs.taking import ImportSpec, RegisterSpec
from bgpanet.validation import problems_of, unknown

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
