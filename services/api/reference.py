"""`/openapi.json`, and `/docs`: the same document as a page. Both answer without a token; neither tells of any data."""

import json
import shlex
from collections.abc import Mapping
from typing import Any, cast

from flask import Blueprint, Response, current_app, jsonify, render_template

from services.api.caching import revalidated
from services.api.openapi import Json, document

routes = Blueprint("reference", __name__, template_folder="templates")
LIMITS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "more than {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "less than {}",
    "minLength": "{} characters or more",
    "maxLength": "{} characters or fewer",
    "minItems": "{} items or more",
    "maxItems": "{} items or fewer",
    "pattern": "as {}",
}


@routes.get("/openapi.json")
def get_openapi() -> Response:
    return revalidated(jsonify(_document()), "no-cache")


@routes.get("/docs")
def get_docs() -> Response:
    made = _document()
    page = render_template("docs.html", info=made["info"], groups=_groups(made), models=_models(made))
    return revalidated(current_app.make_response(page), "no-cache")


def _document() -> Json:
    """Made once for each application; all its routes are known when it is first asked for."""
    known = current_app.extensions
    if "openapi" not in known:
        known["openapi"] = document(current_app)
    return cast(Json, known["openapi"])


# ── The page ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _groups(made: Json) -> list[Json]:
    operations = [(path, method, what) for path, methods in made["paths"].items() for method, what in methods.items()]
    return [
        {
            **tag,
            "operations": [_operation(*operation) for operation in operations if tag["name"] in operation[2]["tags"]],
        }
        for tag in made["tags"]
    ]


def _operation(path: str, method: str, operation: Json) -> Json:
    parameters = [{**p, **_field(p["schema"]), "in": p["in"]} for p in operation["parameters"]]
    bodies = [
        {"media": media, "type": _type(content["schema"]), "examples": _examples(content)}
        for media, content in operation.get("requestBody", {}).get("content", {}).items()
    ]
    answers = [
        {
            "status": status,
            "what": response["description"],
            "type": _type(content.get("schema", {})) if content else [],
            "media": media,
            "examples": _examples(content) if status < "400" else [],
        }
        for status, response in operation["responses"].items()
        for media, content in response.get("content", {None: {}}).items()
    ]
    told = {"path": path, "method": method, "curl": _curl(path, method, operation, bodies)}
    return {**operation, **told, "parameters": parameters, "bodies": bodies, "answers": answers}


def _examples(content: Json) -> list[str]:
    found = [content["example"]] if "example" in content else []
    found += [example["value"] for example in content.get("examples", {}).values()]
    return [json.dumps(value, indent=2, ensure_ascii=False) for value in found]


def _curl(path: str, method: str, operation: Json, bodies: list[Json]) -> str:
    for parameter in operation["parameters"]:
        if parameter["in"] == "path":
            path = path.replace(f"{{{parameter['name']}}}", str(parameter["example"]))
    command = "curl" if method == "get" else f"curl -X {method.upper()}"
    parts = [f'{command} "$BGPANET_URL{path}"', '-H "Authorization: Bearer $BGPANET_TOKEN"']
    headers = [p for p in operation["parameters"] if p["in"] == "header" and p.get("required")]
    named = {header["name"]: header["example"] for header in headers}
    if bodies and bodies[0]["media"] != "multipart/form-data":  # curl adds what stands between its parts
        named["Content-Type"] = bodies[0]["media"]
    parts += [f"-H {shlex.quote(f'{name}: {value}')}" for name, value in named.items()]
    for body in bodies:
        if body["media"] == "multipart/form-data":
            parts.append("-F images=@one.jpg -F images=@two.jpg")
            continue
        parts.append(f"-d {shlex.quote(body['examples'][0])}" if body["examples"] else "--data-binary @part")
    return " \\\n  ".join(parts)


def _models(made: Json) -> list[Json]:
    return [
        {
            "name": name,
            "description": schema.get("description", ""),
            "fields": [
                {"name": field, "required": field in schema.get("required", ()), **_field(what)}
                for field, what in schema.get("properties", {}).items()
            ],
        }
        for name, schema in made["components"]["schemas"].items()
    ]


def _field(schema: Mapping[str, Any]) -> Json:
    options = [schema, *schema.get("anyOf", ())]
    limits = [text.format(option[name]) for option in options for name, text in LIMITS.items() if name in option]
    default = schema.get("default")
    is_small = isinstance(default, str | int | float)
    told = {"description": schema["description"]} if "description" in schema else {}
    return {**told, "type": _type(schema), "limits": limits, "default": json.dumps(default) if is_small else None}


def _type(schema: Mapping[str, Any]) -> list[tuple[str, str | None]]:
    """A type in words: pieces of text, each with the model that it names, or None."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return [(name, name)]
    for several in ("anyOf", "oneOf"):
        if several in schema:
            pieces: list[tuple[str, str | None]] = []
            for option in schema[several]:
                pieces += [*([(" or ", None)] if pieces else []), *_type(option)]
            return pieces
    if "enum" in schema or "const" in schema:
        return [(", ".join(map(json.dumps, schema.get("enum") or [schema["const"]])), None)]
    if schema.get("type") == "array":
        items = schema.get("items") or {"anyOf": schema.get("prefixItems", [])}
        return [("list of ", None), *_type(items)]
    values = schema.get("additionalProperties")
    if schema.get("type") == "object" and isinstance(values, dict):
        return [("object of ", None), *_type(values)]
    return [(schema.get("format") or schema.get("type") or "anything", None)]
