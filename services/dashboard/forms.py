"""A form made from a spec's JSON schema, and a spec made from what was filled in.

Every field of a spec is a field of the form, named by its place (`spec.training.epochs`), so that a problem that the
service finds stands at its field. What is left as it was preset is left out of the request: defaults stay defaults.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from bgpanet import plain_json
from bgpanet.specs import SPECS, LearningSpec

LEFT_OUT = {"spec.data", "spec.shard"}  # what a service fills in, or takes from nobody
OF_LEARNING = {"spec.resources.gpus"}  # of no other kind
FIRST = ("model", "loss", "training", "split")
NOTHING = object()


@dataclass(frozen=True)
class Field:
    """One field. kind: text, number, choice or json. value, preset: as they stand in the form; "" is the default of
    what may be left empty. rules: what the schema demands, in words."""

    name: str
    label: str
    help: str
    kind: str
    value: str
    preset: str
    rules: str = ""
    choices: tuple[str, ...] = ()
    schema: Mapping[str, Any] = field(default_factory=dict)
    is_nullable: bool = False

    @property
    def is_changed(self) -> bool:
        return self.value != self.preset


@dataclass(frozen=True)
class Group:
    """Fields that belong together."""

    name: str
    label: str
    help: str
    fields: list[Field]

    @property
    def changed(self) -> int:
        """How many of its fields differ from their presets."""
        return sum(one.is_changed for one in self.fields)


ABBREVIATIONS = {"ema": "EMA", "sha256": "SHA-256", "ce": "CE", "gb": "GB", "id": "ID", "gpu": "GPU", "cpu": "CPU"}


def groups_of(kind: str, spec: Mapping[str, Any]) -> list[Group]:
    """The form for a spec of this kind, filled with `spec`; fields that stand directly in it come last, as a group."""
    schema = _schema(kind)
    left_out = LEFT_OUT if issubclass(SPECS[kind], LearningSpec) else LEFT_OUT | OF_LEARNING
    groups, own = [], []
    for name, part in schema["properties"].items():
        place = f"spec.{name}"
        if place in left_out:
            continue
        inner = _object(part, schema)
        values = spec.get(name) or {}
        if inner is None:
            own.append(_field(place, part, schema, spec.get(name, NOTHING), name in schema.get("required", ())))
        else:
            needed = inner.get("required", ())
            fields = [
                _field(f"{place}.{key}", value, schema, values.get(key, NOTHING), key in needed)
                for key, value in inner["properties"].items()
                if f"{place}.{key}" not in left_out
            ]
            told = part.get("description") or inner.get("description", "")
            groups.append(Group(place, _words(name), " ".join(told.split()), fields))
    groups.sort(key=lambda group: FIRST.index(name) if (name := group.name[5:]) in FIRST else len(FIRST))
    needs = any(one.rules.startswith("required") for one in own)
    own_group = [Group("spec", "This job" if needs else "More", "", own)] if own else []
    return [*own_group, *groups] if needs else [*groups, *own_group]


def read_spec(kind: str, form: Mapping[str, str]) -> dict[str, Any]:
    """The spec that was filled in, without what is as it was preset. What can't be read stays text: the service says
    what is wrong with it."""
    spec: dict[str, Any] = {}
    for group in groups_of(kind, {}):
        for one in group.fields:
            text = form.get(one.name, one.preset).strip()
            if text == one.preset:
                continue
            if not text and not one.is_nullable:
                continue
            *places, last = one.name.split(".")[1:]
            at = spec
            for place in places:
                at = at.setdefault(place, {})
            at[last] = _value(text, one)
    return spec


def _schema(kind: str) -> dict[str, Any]:
    return SPECS[kind].model_json_schema(mode="serialization")


def _object(part: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any] | None:
    """The schema of a group of fields, where a field is one."""
    for choice in _choices(part):
        if "$ref" in choice:
            found: dict[str, Any] = schema["$defs"][choice["$ref"].rpartition("/")[2]]
            return found if found.get("properties") else None
    return None


def _choices(part: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield part
    yield from (*part.get("anyOf", ()), *part.get("allOf", ()))


def _field(place: str, part: Mapping[str, Any], schema: Mapping[str, Any], value: Any, is_required: bool) -> Field:
    kinds = [choice for choice in _choices(part) if choice.get("type") != "null"]
    is_nullable = any(choice.get("type") == "null" for choice in _choices(part))
    is_object: Mapping[str, Any] = {"type": "object"}
    plain = next((choice for choice in kinds if "type" in choice or "enum" in choice), is_object)
    preset = _text(part.get("default"))
    choices = tuple(map(str, part.get("enum") or plain.get("enum") or ()))
    kind = {"integer": "number", "number": "number", "array": "text", "object": "json"}.get(plain["type"], "text")
    if plain["type"] == "array" and plain.get("items", {}).get("$ref"):
        kind = "json"
    if plain["type"] == "boolean":
        choices = ("no", "yes")
    if choices:
        kind = "choice"
        choices = choices if not (is_nullable or is_required) else ("", *choices)
    return Field(
        name=place,
        label=_words(place.rpartition(".")[2]),
        help=part.get("description", ""),
        kind=kind,
        value=preset if value is NOTHING else _text(value),
        preset=preset,
        rules=_rules(plain, preset, is_required),
        choices=choices,
        schema=plain,
        is_nullable=is_nullable,
    )


def _rules(plain: Mapping[str, Any], preset: str, is_required: bool) -> str:
    limits = {
        "minimum": "at least {}",
        "exclusiveMinimum": "more than {}",
        "maximum": "at most {}",
        "exclusiveMaximum": "less than {}",
    }
    told = ["required"] if is_required else []
    told += [words.format(_text(plain[name])) for name, words in limits.items() if name in plain]
    told += ["several, with commas"] if plain["type"] == "array" and "$ref" not in plain.get("items", {}) else []
    told += ["as JSON"] if plain["type"] == "object" or plain.get("items", {}).get("$ref") else []
    return ", ".join(told + ([f"preset {preset}"] if preset else []))


def _value(text: str, one: Field) -> Any:
    """What a text in the form stands for; the text itself where it stands for nothing of its type."""
    if not text:
        return None
    kind = one.schema["type"]
    try:
        if kind == "boolean":
            return {"yes": True, "no": False}.get(text, text)
        if one.kind == "json":
            return plain_json.loads(text)
        if kind == "array":
            wanted = one.schema.get("items", {}).get("type", "string")
            return [_number(part.strip(), wanted) for part in text.split(",") if part.strip()]
        return _number(text, kind)
    except (ValueError, RecursionError):
        return text


def _number(text: str, kind: str) -> Any:
    """Raises ValueError."""
    number = {"integer": int, "number": float}.get(kind, str)(text)
    plain_json.refuse_unstorable(number)
    return number


def _text(value: Any) -> str:
    if value is None or value is NOTHING:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple) and not any(isinstance(item, dict) for item in value):
        return ", ".join(map(str, value))
    if isinstance(value, dict | list | tuple):
        return json.dumps(value, ensure_ascii=False)
    return f"{value:g}" if isinstance(value, float) and value == float(f"{value:g}") else str(value)


def _words(name: str) -> str:
    words = name.replace("_", " ").capitalize().split(" ")
    return " ".join(ABBREVIATIONS.get(word.lower(), word) for word in words)
