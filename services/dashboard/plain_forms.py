"""Small forms: read into a typed model with what is wrong told by field, and sent only once where that matters."""

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast, get_origin

from flask import request, session
from pydantic import BaseModel, ConfigDict, ValidationError

from bgpanet.errors import InvalidInput, Problem
from bgpanet.validation import problems_of

MOST_REMEMBERED = 20  # forms of a session that were sent
EMPTY = "must not be empty"


class Filled(BaseModel):
    """Base of what a form is read into. A field that is left empty is as if it was not there."""

    model_config = ConfigDict(frozen=True, str_strip_whitespace=True)


FilledT = TypeVar("FilledT", bound=Filled)


@dataclass(frozen=True)
class Form:
    """A form as it is shown: what stands in it, and what is wrong, by field; "" is the form as a whole."""

    values: Mapping[str, Any] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)


def read(model: type[FilledT]) -> FilledT:
    """What was filled in. Raises InvalidInput with every problem."""
    values: dict[str, Any] = {}
    for name, known in model.model_fields.items():
        texts = [text for text in request.form.getlist(name) if text.strip()]
        if texts:
            values[name] = texts if get_origin(known.annotation) is list else texts[-1]
    try:
        return model.model_validate(values)
    except ValidationError as error:
        missing = {str(item["loc"][0]) for item in error.errors() if item["type"] == "missing"}
        problems = problems_of(error, model=model)
        raise InvalidInput(
            [Problem(one.where, EMPTY if one.where in missing else one.what) for one in problems]
        ) from None


def again(model: type[Filled], problems: Iterable[Problem]) -> Form:
    """The form that was sent, with what is wrong beside its fields."""
    values = {
        name: request.form.getlist(name) if get_origin(known.annotation) is list else request.form.get(name, "")
        for name, known in model.model_fields.items()
    }
    told: dict[str, str] = {}
    for one in problems:
        place = one.where.partition(".")[0]
        place = place if place in model.model_fields else ""
        told[place] = f"{told[place]}; {one.what}" if place in told else one.what
    return Form(values, told)


def once() -> str:
    """What a form carries that may be sent only once."""
    return secrets.token_urlsafe(9)


def was_sent() -> bool:
    """Whether this very form did its work already: the page that came of it is being loaded again."""
    return request.form.get("once", "") in cast(list[str], session.get("sent", []))


def note_sent() -> None:
    """This form did its work. The browser's session remembers it, since nothing else holds what came of it."""
    if key := request.form.get("once", "")[:40]:
        session["sent"] = [*session.get("sent", []), key][-MOST_REMEMBERED:]
