"""A run's spec as a list of settings beside their defaults."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bgpanet.specs import LOSS_OPTIONS, LearningSpec, SplitSpec

UNSET = "not set"


@dataclass(frozen=True)
class Setting:
    """A field of a spec, by its path (`training.epochs`)."""

    name: str
    value: str
    default: str

    @property
    def is_changed(self) -> bool:
        return self.value != self.default


def settings(spec: Mapping[str, Any]) -> list[Setting]:
    """Every field of a training's, a cross-validation's or a study's spec that decides what comes out.

    Options of losses other than the one used are left out, and so is what a study changes from variant to variant.
    """
    defaults = {
        **LearningSpec().model_dump(mode="json"),
        "split": SplitSpec().model_dump(mode="json"),
    }
    told = {name: value for name, value in spec.items() if name in defaults and name not in ("data", "resources")}
    used = LOSS_OPTIONS.get(str((told.get("loss") or {}).get("name")), frozenset()) | {"name"}
    if told.get("loss"):
        told["loss"] = {name: value for name, value in told["loss"].items() if name in used}
    by_name = dict(_flat(defaults))
    return [Setting(name, value, by_name.get(name, UNSET)) for name, value in _flat(told)]


def _flat(values: Mapping[str, Any], beginning: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{beginning}{name}.")
        else:
            yield f"{beginning}{name}", _text(value)


def _text(value: object) -> str:
    if value is None:
        return UNSET
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
