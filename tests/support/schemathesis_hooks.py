"""What generated requests are given of a service that has something in it, and what answers are held against.

Ids and names that are drawn at random lead nowhere; most of them are replaced by those of what is there, so that
requests come through to it. What is there stays: requests that would take it away, or the token that asks, are left
out; what such requests make themselves they may remove.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from schemathesis import Case
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
]
MOST_WAIT = "wait=1"  # seconds; examples would wait longer


@dataclass(frozen=True)
class Seeds:
    """What is there. jobs: ids, first that of one which has files. known: for each parameter of paths, values that lead
    somewhere. kept: ids of what may not be taken away."""

    dataset: str
    jobs: tuple[str, ...]
    known: Mapping[str, tuple[Any, ...]]
    kept: frozenset[str]


def give(schema: Any, seeds: Seeds) -> None:
    """Lets a schema draw what is there."""

    def map_path_parameters(context: Any, path_parameters: dict[str, Any] | None) -> dict[str, Any] | None:
        return path_parameters and _known(seeds, path_parameters)

    def map_headers(context: Any, headers: dict[str, Any] | None) -> dict[str, Any] | None:
        return headers and {**headers, **({"Prefer": MOST_WAIT} if "Prefer" in headers else {})}

    def map_body(context: Any, body: Any) -> Any:
        return _applied(seeds, body) if isinstance(body, dict) else body

    def filter_case(context: Any, case: Case[Any]) -> bool:
        return not takes_away(seeds, case)

    for hook in (map_path_parameters, map_headers, map_body, filter_case):
        schema.hook(hook)


def takes_away(seeds: Seeds, case: Case[Any]) -> bool:
    """Whether a request would remove something that is to stay."""
    return case.method.upper() == "DELETE" and not seeds.kept.isdisjoint(
        map(str, (case.path_parameters or {}).values())
    )


def _known(seeds: Seeds, drawn: dict[str, Any]) -> dict[str, Any]:
    """Parameters of a path that lead somewhere, three times of four."""
    number = _number(drawn)
    if number % 4 == 0:
        return drawn
    chosen = {name: values[number // 4 % len(values)] for name, values in seeds.known.items() if name in drawn}
    if {"job_id", "name"} <= chosen.keys():
        chosen["job_id"] = seeds.jobs[0]  # the one that has files
    return {**drawn, **chosen}


def _applied(seeds: Seeds, body: dict[str, Any]) -> dict[str, Any]:
    """A body whose data set, format and model are there, more often than not."""
    number = _number(body)
    if isinstance(body.get("format"), str) and number % 3:
        rest = {name: value for name, value in body.items() if name != "source"}
        body = {**rest, "name": f"set-{number % 1000}", "format": "csv", "path": "/data"}
    if isinstance(body.get("dataset"), str) and number % 4:
        body = {**body, "dataset": seeds.dataset}
    if body.get("kind") in ("predict", "evaluate", "explain") and isinstance(body.get("spec"), dict) and number % 3:
        body = {**body, "spec": {**body["spec"], "model": seeds.jobs[0]}}
    if body.get("after") and number % 3:
        body = {**body, "after": list(seeds.jobs[:1])}
    return body


def _number(value: Any) -> int:
    text = json.dumps(value, sort_keys=True, default=repr).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(text).digest()[:4], "big")
