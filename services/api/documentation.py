"""What a route takes and answers, declared beside it. `openapi.py` makes the document of it.

A route's docstring is its description: one line, and after an empty one whatever else is to be known.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from flask import Blueprint, current_app, request

from bgpanet.errors import InvalidInput, Problem
from services.api.answers import Answer
from services.api.parsing import Body, Query


@dataclass(frozen=True)
class Media:
    """Content that is no JSON. type: its media type; what: a sentence; schema: None: bytes."""

    type: str
    what: str
    schema: Mapping[str, Any] | None = None


FILE = Media("*/*", "The file")
STREAM = Media("text/event-stream", "Server-sent events")


Answers = type[Answer] | Media | tuple[type[Answer] | Media, ...] | None


class Section(Blueprint):
    """The routes of one file; one that a file of this folder calls `routes` is served under `/api/v1`.

    tags: a sentence for each first part of its paths that no other section tells of. paths: description and example
    of what stands in its paths, by name. headers: those of its requests that `openapi.HEADERS` does not have, as
    OpenAPI describes a parameter.
    """

    def __init__(
        self,
        name: str,
        import_name: str,
        *,
        url_prefix: str | None = None,
        tags: Mapping[str, str] | None = None,
        paths: Mapping[str, tuple[str, str]] | None = None,
        headers: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__(name, import_name, url_prefix=url_prefix)
        self.tags, self.paths, self.headers = tags or {}, paths or {}, headers or {}


@dataclass(frozen=True)
class Operation:
    """What a route takes and answers.

    answers: what comes with each status of success, None: nothing, several: one of them. headers: names of
    `openapi.HEADERS` or its section's. problems: statuses of problem documents beyond those that follow from the
    rest, and what they mean here; empty: what they mean everywhere.
    """

    answers: Mapping[int, Answers]
    body: type[Body] | Media | None = None
    query: type[Query] | None = None
    headers: tuple[str, ...] = ()
    problems: Mapping[int, str] = field(default_factory=dict)


View = TypeVar("View", bound=Callable[..., Any])


def documented(
    answers: Mapping[int, Answers],
    *,
    body: type[Body] | Media | None = None,
    query: type[Query] | None = None,
    headers: Iterable[str] = (),
    problems: Iterable[int] | Mapping[int, str] = (),
) -> Callable[[View], View]:
    """Declares a route's `Operation`. Stands below `@routes.…`; a test finds routes that lack it."""
    told = problems if isinstance(problems, Mapping) else dict.fromkeys(problems, "")

    def declare(view: View) -> View:
        vars(view)["operation"] = Operation(answers, body, query, tuple(headers), told)
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
