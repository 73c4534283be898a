"""The OpenAPI 3.1 document, made from the models that check requests, those that describe answers, and what routes
declare (`documentation.py`)."""

import inspect
import re
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from importlib.metadata import version
from typing import Any

from flask import Flask
from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema
from werkzeug.routing import Rule

from services.api import answers
from services.api.documentation import Media, Operation, Section, operation_of
from services.api.job_bodies import JOB_BODIES
from services.api.parsing import IDEMPOTENCY_KEY, MOST_WAIT, JobBody

PREFIX = "/api/v1/"
REFERENCE = "#/components/schemas/{model}"
Json = dict[str, Any]

HEADERS: dict[str, Json] = {  # of requests
    "Idempotency-Key": {
        "description": "Makes it safe to repeat: the same key gives what it gave before",
        "schema": {"type": "string", "pattern": IDEMPOTENCY_KEY},
        "example": "6f1c8e0a-first-try",
    },
    "Prefer": {
        "description": f"`wait=N`: the answer is held back until it is done, for at most N and {MOST_WAIT} seconds",
        "schema": {"type": "string"},
        "example": "wait=10",
    },
    "Content-Digest": {
        "description": "of the body, as RFC 9530 has it",
        "required": True,
        "schema": {"type": "string", "pattern": "^sha-256=:[A-Za-z0-9+/]{43}=:$"},
        "example": "sha-256=:n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgg=:",
    },
    "Last-Event-ID": {
        "description": "of a stream: the id of the last event that was heard; what came after it follows",
        "schema": {"type": "string"},
    },
    "If-None-Match": {
        "description": "the `ETag` of an earlier answer: 304 where it still is the same",
        "schema": {"type": "string"},
    },
    "If-Range": {
        "description": "the `ETag` of an earlier answer: the range alone where it still is the same, else the whole",
        "schema": {"type": "string"},
    },
    "Range": {"description": "a part of the file: `bytes=0-1023`", "schema": {"type": "string"}},
}
MEANINGS = {
    200: "Done",
    201: "Made; it is at `Location`",
    202: "Accepted; it is done in a moment",
    204: "Done",
    206: "The part that was asked for",
    302: "It is at `Location`, for a while",
    304: "It is what you have",
    401: "There is no token, or it is not known, was revoked or has expired",
    403: "The token's role, its scopes or one's role in the project may not do this",
    404: "There is no such thing, or it is not yours",
    409: "It contradicts what is there",
    413: "The body is too large",
    416: "The file has no such part",
    422: "The request is wrong; `errors` names every field",
    429: "As much waits as may, or the token asks too often; try again later",
    503: "The database or the artifact store does not answer; try again",
    504: "No worker answered in time; try again",
}
ANSWERED: dict[int, tuple[str, ...]] = {201: ("Location",), 302: ("Location",), 304: ("ETag",)}
ANSWERED |= {401: ("WWW-Authenticate",), 416: ("Content-Range",)}
ANSWERED |= {429: ("Retry-After",), 503: ("Retry-After",), 504: ("Retry-After",)}
ALWAYS = frozenset({401, 422, 429, 503})


def documented_routes(app: Flask) -> Iterator[tuple[Rule, str, Operation | None]]:
    """Every route of the API with its method and what it declares."""
    for rule in app.url_map.iter_rules():
        if rule.rule.startswith(PREFIX):
            for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
                yield rule, method.lower(), operation_of(app.view_functions[rule.endpoint])


def sections_of(app: Flask) -> list[Section]:
    """The sections that the application serves."""
    return [blueprint for blueprint in app.blueprints.values() if isinstance(blueprint, Section)]


def document(app: Flask) -> Json:
    """The whole document, as plain data. Routes that declare nothing are left out."""
    schemas = _schemas(app)
    tags = {name: what for section in sections_of(app) for name, what in section.tags.items()}
    paths: dict[str, Json] = {}
    for rule, method, operation in documented_routes(app):
        if operation is not None:
            view = app.view_functions[rule.endpoint]
            section = app.blueprints[rule.endpoint.rpartition(".")[0]]
            assert isinstance(section, Section)  # noqa: S101 - nothing else is served under the prefix
            paths.setdefault(_path(rule), {})[method] = _operation(rule, method, operation, view, section, schemas)
    _link(paths)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "BGPANet Service",
            "version": version("bgpanet-service"),
            "summary": "Train, cross-validate, compare and apply skin-lesion classifiers",
            "description": "For research. Not a medical device, and not for diagnosis. Errors are problem documents "
            "(RFC 9457) that name every wrong field. Unknown fields and parameters are refused. Times are RFC 3339 "
            "in UTC, ids are UUIDv7, lists are `items` with the `next_cursor` of what follows.",
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}],
        "tags": [{"name": name, "description": what} for name, what in tags.items()],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "from `bgpanet token create`"}
            },
        },
    }


def example_of(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> Any:
    """A value that a schema allows: its own example, else one made of those of its parts."""
    if "examples" in schema:
        return schema["examples"][0]
    for name in ("example", "const", "default"):
        if name in schema:
            return schema[name]
    if "enum" in schema:
        return schema["enum"][0]
    if "$ref" in schema:
        return example_of(schemas[schema["$ref"].rpartition("/")[2]], schemas)
    for name in ("oneOf", "anyOf", "allOf"):
        if name in schema:
            return example_of(schema[name][0], schemas)
    if schema.get("type") == "object":
        needed = schema.get("required", ())
        parts = schema.get("properties", {})
        return {name: example_of(parts[name], schemas) for name in parts if name in needed or "examples" in parts[name]}
    if schema.get("type") == "array":
        return [example_of(schema["items"], schemas)]
    return {"string": "text", "integer": schema.get("minimum", 0), "number": 0.5, "boolean": False}.get(
        str(schema.get("type"))
    )


# ── Its parts ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _schemas(app: Flask) -> dict[str, Json]:
    """All models that routes name, by their names."""
    models: dict[type[BaseModel], None] = {answers.Problem: None}
    for _, _, operation in documented_routes(app):
        if operation is None:
            continue
        if isinstance(operation.body, type):
            models |= dict.fromkeys(JOB_BODIES if operation.body is JobBody else (operation.body,))
        for answer in operation.answers.values():
            models |= dict.fromkeys(_models(answer))
    _, definitions = models_json_schema(
        [(model, "validation") for model in models], ref_template=REFERENCE, schema_generator=_Named
    )
    schemas: dict[str, Json] = definitions["$defs"]
    return schemas


class _Named(GenerateJsonSchema):
    """A page of jobs is called `JobPage`, and fields have no titles beside their names."""

    def normalize_name(self, name: str) -> str:
        return super().normalize_name(_name(name))

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def _operation(
    rule: Rule, method: str, operation: Operation, view: Any, section: Section, schemas: Mapping[str, Json]
) -> Json:
    summary, _, description = inspect.cleandoc(view.__doc__ or "").partition("\n\n")
    made: Json = {
        "operationId": view.__name__,
        "tags": [rule.rule.removeprefix(PREFIX).partition("/")[0]],
        "summary": summary.replace("\n", " ").removesuffix("."),
        "parameters": [
            *_path_parameters(rule, section),
            *_query_parameters(operation),
            *_headers(operation, section),
        ],
        "responses": _responses(rule, method, operation, schemas),
    }
    if description:
        made["description"] = " ".join(description.split())
    if operation.body is not None:
        made["requestBody"] = {"required": True, "content": _body(operation.body, schemas)}
    return made


def _path(rule: Rule) -> str:
    return re.sub(r"<(?:[^<>:]+:)?([^<>]+)>", r"{\1}", rule.rule)


def _path_parameters(rule: Rule, section: Section) -> list[Json]:
    numbers = set(re.findall(r"<int:([^<>]+)>", rule.rule))
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": section.paths[name][0],
            "schema": {"type": "integer", "minimum": 1} if name in numbers else {"type": "string"},
            "example": int(section.paths[name][1]) if name in numbers else section.paths[name][1],
        }
        for name in re.findall(r"<(?:[^<>:]+:)?([^<>]+)>", rule.rule)
    ]


def _query_parameters(operation: Operation) -> list[Json]:
    if operation.query is None:
        return []
    schema = operation.query.model_json_schema(schema_generator=_Named)
    return [
        {
            "name": name,
            "in": "query",
            "required": name in schema.get("required", ()),
            "description": field.get("description", ""),
            "schema": _plain(field),
        }
        for name, field in schema["properties"].items()
    ]


def _plain(field: Mapping[str, Any]) -> Json:
    """The schema of a parameter. One that may be left out is never sent as null."""
    kept = {name: value for name, value in field.items() if name not in ("description", "default")}
    given = [option for option in kept.pop("anyOf", []) if option != {"type": "null"}]
    default = {"default": field["default"]} if field.get("default") is not None else {}
    return {**kept, **(given[0] if given else {}), **default}


def _headers(operation: Operation, section: Section) -> list[Json]:
    known = {**HEADERS, **section.headers}
    return [{"name": name, "in": "header", **known[name]} for name in operation.headers]


def _body(body: type[BaseModel] | Media, schemas: Mapping[str, Json]) -> Json:
    if isinstance(body, Media):
        return _media(body)
    if body is not JobBody:
        return _json(_reference(body), schemas)
    mapping = {schemas[model.__name__]["properties"]["kind"]["const"]: _reference(model) for model in JOB_BODIES}
    schema: Json = {
        "oneOf": [*mapping.values()],
        "discriminator": {
            "propertyName": "kind",
            "mapping": {kind: reference["$ref"] for kind, reference in mapping.items()},
        },
    }
    examples = {kind: {"value": example_of(reference, schemas)} for kind, reference in mapping.items()}
    return {"application/json": {"schema": schema, "examples": examples}}


def _responses(rule: Rule, method: str, operation: Operation, schemas: Mapping[str, Json]) -> Json:
    found: dict[int, Json] = {}
    for status, answer in operation.answers.items():
        found[status] = {"description": answer.what if isinstance(answer, Media) else _meaning(status)}
        content: Json = {}
        if models := _models(answer):
            references = [_reference(model) for model in models]
            schema = references[0] if len(references) == 1 else {"anyOf": references}
            content |= _json(schema, schemas)
        for media in answer if isinstance(answer, tuple) else (answer,):
            if isinstance(media, Media):
                content |= _media(media)
        if content:
            found[status]["content"] = content
    problems = ALWAYS | operation.problems.keys()
    problems |= {403} if method != "get" else set()
    problems |= {404} if rule.arguments else set()
    problems |= {413} if operation.body is not None else set()
    for status in problems:
        title, meaning = HTTPStatus(status).phrase, operation.problems.get(status) or _meaning(status)
        told = {"request_id": "0193a1f2b7c04e5d", "detail": meaning}
        example: Json = {"type": "about:blank", "title": title, "status": status, **told}
        if status == 422:
            example["errors"] = [example_of(schemas["WrongField"], schemas)]
        content = {"application/problem+json": {"schema": _reference(answers.Problem), "example": example}}
        found[status] = {"description": meaning, "content": content}
    for status, response in found.items():
        if names := ANSWERED.get(status):
            response["headers"] = {name: {"schema": {"type": "string"}} for name in names}
    if 304 in found:
        found[200]["headers"] = {"ETag": {"schema": {"type": "string"}}}
    return {str(status): found[status] for status in sorted(found)}


def _meaning(status: int) -> str:
    return MEANINGS.get(status) or HTTPStatus(status).phrase


def _models(answer: object) -> tuple[type[BaseModel], ...]:
    several = answer if isinstance(answer, tuple) else (answer,)
    return tuple(model for model in several if isinstance(model, type) and issubclass(model, BaseModel))


def _reference(model: type[BaseModel]) -> Json:
    return {"$ref": REFERENCE.format(model=_name(model.__name__))}


def _name(name: str) -> str:
    return re.sub(r"Page\[(?:\w+\.)*(\w+).*\]", r"\1Page", name)


def _media(media: Media) -> Json:
    return {media.type: {"schema": media.schema or {"type": "string", "format": "binary"}}}


def _json(schema: Json, schemas: Mapping[str, Json]) -> Json:
    return {"application/json": {"schema": schema, "example": example_of(schema, schemas)}}


def _link(paths: Mapping[str, Json]) -> None:
    """What `POST /things` made has an id, with which everything below `/things/{thing_id}` can be asked for."""
    for path, methods in paths.items():
        below = re.compile(re.escape(path) + r"/\{(\w+)\}[^{]*")
        made = methods.get("post", {}).get("responses", {}).get("201")
        links = {
            operation["operationId"]: {
                "operationId": operation["operationId"],
                "parameters": {match[1]: "$response.body#/id"},
            }
            for other, operations in paths.items()
            if (match := below.fullmatch(other))
            for operation in operations.values()
        }
        if made and links:
            made["links"] = links
