"""The bodies of `POST jobs` kind by kind, each with the spec that is checked there: how the document describes them."""

from typing import Any, get_args

from pydantic import Field, create_model

from bgpanet.specs import SPECS, Kind
from services.api.answers import ID
from services.api.parsing import JobBody

_PLAIN = {"model": "bgpanet_micro"}
EXAMPLES: dict[str, dict[str, Any]] = {
    "train": {**_PLAIN, "training": {"epochs": 30, "learning_rate": 0.001}},
    "cross_validate": {**_PLAIN, "split": {"folds": 5}},
    "study": {
        **_PLAIN,
        "variants": [{"name": "ours"}, {"name": "weighted", "set": {"loss": "weighted_ce"}}],
        "reference": "ours",
    },
    "predict": {"model": ID},
    "evaluate": {"model": ID, "part": "open"},
    "explain": {"model": ID, "count": 12},
}


def _of_kind(kind: str) -> type[JobBody]:
    """A `JobBody` with the spec that its kind has: how the document describes it."""
    is_needed = any(field.is_required() for field in SPECS[kind].model_fields.values())
    name = "".join(word.title() for word in kind.split("_")) + "Job"
    made: type[JobBody] = create_model(
        name,
        __base__=JobBody,
        __doc__=SPECS[kind].__doc__,
        kind=(str, Field(json_schema_extra={"const": kind})),
        spec=(
            SPECS[kind],
            Field(examples=[EXAMPLES[kind]]) if is_needed else Field(default_factory=dict, examples=[EXAMPLES[kind]]),
        ),
    )
    return made


JOB_BODIES = tuple(map(_of_kind, get_args(Kind)))
