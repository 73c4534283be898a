"""In what the specs of jobs differ, field by field."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ABSENT = object()


@dataclass(frozen=True)
class Difference:
    """A field, and its value in each of the specs in turn; "" where a spec has no such field."""

    field: str
    values: list[str]


def differences(specs: Sequence[Mapping[str, Any]]) -> list[Difference]:
    """The fields in which at least two of the specs differ, in the order in which they stand there."""
    flat = [_flat(spec) for spec in specs]
    names = list(dict.fromkeys(name for fields in flat for name in fields))
    found = []
    for name in names:
        values = [fields.get(name, ABSENT) for fields in flat]
        if any(value != values[0] for value in values[1:]):
            found.append(Difference(name, ["" if value is ABSENT else told(value) for value in values]))
    return found


def told(value: object) -> str:
    """A setting as a person reads it."""
    if value is None or isinstance(value, bool):
        return {None: "not set", True: "yes", False: "no"}[value]
    if isinstance(value, list | tuple):
        return ", ".join(map(told, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _flat(spec: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in spec.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{above}{name}.")
        else:
            found[f"{above}{name}"] = value
    return found
