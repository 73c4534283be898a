"""Whether what a route of the API answered is what it declares to answer."""

import re
from typing import Any, Union

from flask import Flask
from pydantic import TypeAdapter
from werkzeug.test import TestResponse

from services.api import answers
from services.api.documentation import Media, operation_of
from services.api.openapi import document

_paths: dict[str, Any] = {}  # of the document, which is the same for all applications


def assert_as_documented(app: Flask, answer: TestResponse) -> None:
    """Its status is a documented one, and its content that status's, down to the last field."""
    request = answer.request
    adapter = app.url_map.bind("localhost")
    if not adapter.test(request.path, request.method):
        return
    rule, _ = adapter.match(request.path, request.method, return_rule=True)
    if not _paths:
        _paths.update(document(app)["paths"])
    operation = operation_of(app.view_functions[rule.endpoint])
    assert operation is not None, f"{rule} declares nothing; see documentation.py"
    path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)
    told = f"{request.method} {path} answered {answer.status_code}"
    documented = _paths[path][request.method.lower()]["responses"]
    assert str(answer.status_code) in documented, f"{told}, which it does not declare"
    if answer.status_code >= 400:
        assert answer.content_type == "application/problem+json", told
        answers.Problem.model_validate_json(answer.data)
        return
    declared = operation.answers[answer.status_code]
    several = declared if isinstance(declared, tuple) else (declared,)
    if answer.mimetype in [each.type for each in several if isinstance(each, Media)] or isinstance(declared, Media):
        return
    if declared is None:
        assert answer.status_code == 302 or not answer.data, told
        return
    assert answer.content_type == "application/json", told
    accepted: Any = Union[tuple(each for each in several if not isinstance(each, Media))]  # noqa: UP007 - made here
    TypeAdapter(accepted).validate_json(answer.data)
