"""The OpenAPI document: complete, sound, and made of what is checked. That routes answer as it says is checked by every
test that calls one (`Api.call`)."""

import html
import inspect
import json
import re
import shlex
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import jsonschema_rs
import pytest

from bgpanet.specs import SPECS, parse_spec
from services.api.documentation import Section
from services.api.job_bodies import EXAMPLES, JOB_BODIES
from services.api.openapi import HEADERS, document, documented_routes, example_of, sections_of
from services.api.parsing import JobBody
from services.settings import Settings
from services.web import create_app
from tests.unit.services.api.test_api import Api
from tests.unit.services.api.test_api import api as api  # a fixture

WHAT_TO_DO = """
{method} {rule} is not documented. Write below its @routes line, and give the function a docstring:
    @documented({{200: answers.Something}}, body=…, query=…, headers=[…], problems=[…])
`services/api/documentation.py` tells what these are; models of answers are in `services/api/answers/`."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return document(create_app(Settings.load({"BGPANET_HOME": str(tmp_path_factory.mktemp("home"))})))


def operations(made: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in made["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def test_every_route_of_the_api_is_documented(api: Api) -> None:
    app = api.client.application
    tags = {name for section in sections_of(app) for name in section.tags}
    for rule, method, operation in documented_routes(app):
        assert operation is not None, WHAT_TO_DO.format(method=method.upper(), rule=rule)
        assert app.view_functions[rule.endpoint].__doc__, WHAT_TO_DO.format(method=method.upper(), rule=rule)
        section = app.blueprints[rule.endpoint.rpartition(".")[0]]
        assert isinstance(section, Section), f"{rule}: `routes` of its file is to be a Section"
        assert set(operation.headers) <= HEADERS.keys() | section.headers.keys(), f"{rule}: describe its headers"
        assert rule.arguments <= section.paths.keys(), f"{rule}: describe in its Section what stands in its path"
        assert rule.rule.split("/")[3] in tags, f"{rule}: describe its first part in the tags of its Section"


def test_what_a_route_declares_to_take_is_what_it_parses(api: Api) -> None:
    app = api.client.application
    for rule, method, operation in documented_routes(app):
        assert operation is not None
        source = inspect.getsource(app.view_functions[rule.endpoint])
        for parser, declared in (("parse_body", operation.body), ("parse_query", operation.query)):
            parsed = re.findall(rf"{parser}\((\w+)\)", source)
            expected = [declared.__name__] if isinstance(declared, type) else []
            assert parsed == expected, f"{method} {rule} parses {parsed} and declares {expected}"
        for name, function in (
            ("Idempotency-Key", "idempotency_key()"),
            ("Content-Digest", "content_digest()"),
            ("Prefer", "preferred_wait()"),
        ):
            assert (function in source) == (name in operation.headers), f"{method} {rule}: {name}"


def test_every_reference_leads_somewhere_and_every_name_is_used_once(made: dict[str, Any]) -> None:
    schemas = made["components"]["schemas"]
    used = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(made)))
    assert used == schemas.keys()
    ids = [operation["operationId"] for _, _, operation in operations(made)]
    assert len(set(ids)) == len(ids)
    for path, _, operation in operations(made):
        named = {p["name"] for p in operation["parameters"] if p["in"] == "path"}
        assert named == set(re.findall(r"\{(\w+)\}", path))
        assert operation["summary"]
        for response in operation["responses"].values():
            assert {link["operationId"] for link in response.get("links", {}).values()} <= set(ids)


def test_every_example_is_one(made: dict[str, Any]) -> None:
    """An answer's passes its model, a body's is accepted by what checks bodies."""
    declared = {model.__name__: model for model in JOB_BODIES}
    for path, method, operation in operations(made):
        for status, response in operation["responses"].items():
            for content in response.get("content", {}).values():
                if "example" in content:
                    assert valid(made, content["schema"], content["example"]), (path, method, status)
        for content in operation.get("requestBody", {}).get("content", {}).values():
            if "example" in content:
                assert valid(made, content["schema"], content["example"]), (path, method)
    for kind, values in EXAMPLES.items():
        parse_spec(kind, values)
    assert EXAMPLES.keys() == SPECS.keys() - {"register", "export", "import", "trial"}
    for name in declared:
        JobBody.model_validate(example_of(made["components"]["schemas"][name], made["components"]["schemas"]))


def valid(made: dict[str, Any], schema: dict[str, Any], value: Any) -> bool:
    validator = jsonschema_rs.validator_for({**schema, "components": made["components"]})
    return validator.is_valid(value)


def test_a_page_is_named_for_what_is_on_it(made: dict[str, Any]) -> None:
    assert {"ListedJobPage", "WorkerPage"} <= made["components"]["schemas"].keys()


def test_parameters_for_a_route_that_takes_none_are_refused(api: Api) -> None:
    answer = api.call("GET", "workers?limit=3&state=idle")
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json["errors"]] == ["limit", "state"]


def test_the_document_is_served_to_anyone_and_only_once(api: Api) -> None:
    answer = api.client.get("/openapi.json")
    served = json.loads(answer.data)
    assert served["openapi"] == "3.1.0"
    assert served["paths"].keys() == document(api.client.application)["paths"].keys()
    assert api.client.get("/openapi.json", headers={"If-None-Match": answer.headers["ETag"]}).status_code == 304


def test_the_page_tells_every_operation_and_model_and_loads_nothing_from_elsewhere(api: Api) -> None:
    answer = api.client.get("/docs")
    assert (answer.status_code, answer.mimetype) == (200, "text/html")
    served = json.loads(api.client.get("/openapi.json").data)
    ids = set(re.findall(r'id="([^"]+)"', answer.text))
    assert {operation["operationId"] for _, _, operation in operations(served)} <= ids
    assert {f"model-{name}" for name in served["components"]["schemas"]} <= ids
    assert set(re.findall(r'href="#([^"]+)"', answer.text)) <= ids
    for address in re.findall(r'(?:src|href)="([^"#]+)', answer.text):
        assert address.startswith("/"), address
        assert not address.startswith("//"), address


def test_commands_of_the_page_are_those_of_the_shell(api: Api) -> None:
    text = html.unescape(api.client.get("/docs").text)
    commands = re.findall(r'aria-label="Example">(curl.*?)</pre>', text, re.DOTALL)
    assert len(commands) > 20
    for command in commands:
        parts = shlex.split(command)
        for flag, value in pairwise(parts):
            if flag == "-d":
                json.loads(value)
