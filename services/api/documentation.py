"""What a route takes and answers, declared beside it. `openapi.py` makes the document of it.

A route's docstring is its description: one line, and after an empty one whatever else is to be known.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from flask import current_app, request

from bgpanet.errors import InvalidInput, Problem
from services.api.answers import Answer
from services.api.parsing import Body, Query


@dataclass(frozen=True)
class Media:
    """Content that is no JSON. type: its media type; what: a sentence."""

    type: str
    what: str


FILE = Media("*/*", "The file")
STREAM = Media("text/event-stream", "Server-sent events")


Answers = type[Answer] | Media | tuple[type[Answer] | Media, ...] | None


@dataclass(frozen=True)
class Operation:
    """What a route takes and answers.

    answers: what comes with each status of success, None: nothing, several: one of them. headers: names of
    `openapi.HEADERS`. problems: statuses of problem documents beyond those that follow from the rest.
    """

    answers: Mapping[int, Answers]
    body: type[Body] | Media | None = None
    query: type[Query] | None = None
    headers: tuple[str, ...] = ()
    problems: frozenset[int] = frozenset()


View = TypeVar("View", bound=Callable[..., Any])


def documented(
    answers: Mapping[int, Answers],
    *,
    body: type[Body] | Media | None = None,
    query: type[Query] | None = None,
    headers: Iterable[str] = (),
    problems: Iterable[int] = (),
) -> Callable[[View], View]:
    """Declares a route's `Operation`. Stands below `@routes.…`; a test finds routes that lack it."""

    def declare(view: View) -> View:
        vars(view)["operation"] = Operation(answers, body, query, tuple(headers), frozenset(problems))
        return view

    return declare


def operation_of(view: Callable[..., Any]) -> Operation | None:
    """What a route declares; None: nothing."""
    found: Operation | None = vars(view).get("operation")
    return found


def refuse_unasked() -> None:
    """Before every request: parameters for a route that takes none are as wrong as unknown ones elsewhere."""
    view = current_app.view_functions.get(request.endpoint or "")
    operation = view and operation_of(view)
    if operation and operation.query is None and request.args:
        raise InvalidInput([Problem(name, "unknown parameter; this route takes none") for name in request.args])
