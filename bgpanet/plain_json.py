"""JSON from elsewhere, as far as a database can keep it and a page show it."""

import json
import math
import re
from typing import Any

SURROGATE = re.compile("[\ud800-\udfff]")


def loads(text: str | bytes) -> Any:
    """What JSON says. Raises ValueError as `refuse_unstorable`, and where it is none; RecursionError."""
    value = json.loads(text)
    refuse_unstorable(value)
    return value


def refuse_unstorable(value: Any) -> None:
    """Raises ValueError where a text within has a NUL or half a surrogate pair, or a number is NaN or infinite, as
    1e999 becomes."""
    if isinstance(value, str):
        _refuse_text(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is no number that JSON has")
    if isinstance(value, dict):
        for key, item in value.items():
            _refuse_text(key)
            refuse_unstorable(item)
    if isinstance(value, list):
        for item in value:
            refuse_unstorable(item)


def _refuse_text(text: str) -> None:
    if "\0" in text:
        raise ValueError("text must not contain NUL")
    if not text.isascii() and SURROGATE.search(text):
        raise ValueError("text must not contain half a surrogate pair")
