"""What a finished run is explained with later: code, packages, host, device, seeds, digests."""

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import bgpanet

PACKAGES = ("torch", "torchvision", "numpy", "pillow", "safetensors", "scikit-learn", "scipy", "grad-cam", "matplotlib")


def environment() -> dict[str, Any]:
    """Versions and host."""
    return {
        "bgpanet": bgpanet.__version__,
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "host": platform.node(),
        "machine": platform.machine(),
        "system": platform.system(),
    }


def written_at() -> str:
    """Now: `2026-03-01 14:05 UTC`."""
    return f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"


def fingerprint(values: Mapping[str, Any]) -> str:
    """SHA-256, hex, of plain data; the same for the same data."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
