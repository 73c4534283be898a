"""What is said of a request that fails its model: every wrong field at once, and the nearest name that would do."""

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from bgpanet.errors import Problem


def nearest(given: str, known: Iterable[str]) -> str | None:
    """The known name that somebody may have meant, whatever its case; None: none is near."""
    names = {name.lower(): name for name in known}
    near = difflib.get_close_matches(given.lower(), names, n=1)
    return names[near[0]] if near else None


def unknown(what: str, given: str, known: Sequence[str]) -> str:
    """What is said of a name that is not among the known ones. what: of which kind it should be."""
    near = nearest(given, known)
    hint = f"did you mean {near!r}? Known" if near else "known"
    return f"unknown {what} {given!r}; {hint}: {', '.join(known)}"


def problems_of(error: ValidationError, where: str = "", model: type[BaseModel] | None = None) -> list[Problem]:
    """Every problem of a failed validation, each at its field; names with the nearest one that `model` knows.

    where: what the fields belong to. model: what was validated; None: unknown fields get no such hint.
    """
    return [
        Problem(".".join([where, *map(str, item["loc"])]).strip("."), _sentence(item, model))
        for item in error.errors(include_url=False)
    ]


def _sentence(item: Any, model: type[BaseModel] | None) -> str:
    given = item["input"]
    if item["type"] == "extra_forbidden":
        *above, name = item["loc"]
        parent = model and _model_at(model, above)
        meant = _meant(str(name), parent) if parent else []
        hint = f"did you mean {' or '.join(map(repr, meant))}?" if meant else "remove it or correct its name"
        return f"unknown field; {hint}"
    message = str(item["msg"]).removeprefix("Value error, ")
    if item["type"] == "literal_error" and isinstance(given, str):
        near = nearest(given, re.findall(r"'([^']*)'", item["ctx"]["expected"]))
        return f"{message}; did you mean {near!r}?" if near else message
    return message


def _meant(name: str, model: type[BaseModel]) -> list[str]:
    """The field that a name is near to, else those of just that name in the model's own groups."""
    near = nearest(name, _names(model))
    return [near] if near else sorted(_below(name, model))


def _names(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _below(name: str, model: type[BaseModel]) -> Iterator[str]:
    for group, field in model.model_fields.items():
        if any(name in _names(inner) for inner in _models_in(field.annotation)):
            yield f"{group}.{name}"


def _model_at(model: type[BaseModel], path: Iterable[str | int]) -> type[BaseModel] | None:
    """The model of what stands at a path; None where it is not the only one that may stand there."""
    for part in path:
        if isinstance(part, int):
            continue  # of a list, whose items have the model
        field = model.model_fields.get(part)
        inner = _models_in(field.annotation) if field else []
        if len(inner) != 1:
            return None
        model = inner[0]
    return model


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]
