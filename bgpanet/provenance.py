"""What a finished run is explained with later: code, packages, host, device, seeds, digests."""

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Mapping
from typing import Any

import bgpanet

PACKAGES = ("torch", "torchvision", "numpy", "pillow", "safetensors", "scikit-learn", "scipy")


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


def fingerprint(values: Mapping[str, Any]) -> str:
    """SHA-256, hex, of plain data; the same for the same data."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
