"""docker-compose.yml as tests read it: what each service runs, with which environment, and who may reach it."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker-compose.yml"
OURS = ("api", "scheduler", "worker", "worker-cpu", "prepare")
"""The services that run this product's own command."""


def compose() -> dict[str, Any]:
    """The file, with its anchors merged."""
    loaded: dict[str, Any] = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))
    return loaded


@dataclass
class Place:
    """Where this machine has what containers find under fixed names.

    secrets: the folder behind `/run/secrets`; replaced: text of commands and values, and what stands for it here.
    """

    secrets: Path
    replaced: dict[str, str] = field(default_factory=dict)

    def put(self, text: str) -> str:
        here = {"/run/secrets": str(self.secrets), **self.replaced}
        # In one pass, so that nothing is replaced in what was put there.
        known = re.compile("|".join(re.escape(old) for old in sorted(here, key=len, reverse=True)))
        return known.sub(lambda found: here[found[0]], text)

    def command(self, service: dict[str, Any]) -> list[str]:
        return [self.put(str(word)) for word in service["command"]]

    def environment(self, service: dict[str, Any]) -> dict[str, str]:
        """The service's variables; `${NAME:-default}` counts as its default."""
        return {name: self.put(default_of(str(value))) for name, value in service.get("environment", {}).items()}


def default_of(text: str) -> str:
    """A value as Compose reads it where the caller has set no variable."""
    while "${" in text:
        before, rest = text.split("${", 1)
        expression, after = rest.split("}", 1)
        text = before + expression.partition(":-")[2] + after
    return text
