"""Log lines: readable text, or one JSON object a line, with the ids of the request, job and attempt they belong to."""

import contextvars
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Literal

Format = Literal["text", "json"]
FORMATS: tuple[Format, ...] = ("text", "json")
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "ids"}

_NONE: Mapping[str, str] = MappingProxyType({})
_ids: contextvars.ContextVar[Mapping[str, str]] = contextvars.ContextVar("bgpanet_log_ids", default=_NONE)


def bound(**ids: str) -> Callable[[], None]:
    """Has all lines of this thread (and of what runs in a copy of its context) bear `ids`, until what it returns is
    called."""
    token = _ids.set({**_ids.get(), **ids})

    def leave() -> None:
        with suppress(ValueError):  # another context, which ends with its request
            _ids.reset(token)

    return leave


@contextmanager
def belonging_to(**ids: str) -> Iterator[None]:
    """`bound` for a block."""
    leave = bound(**ids)
    try:
        yield
    finally:
        leave()


def configure(form: Format, handlers: list[logging.Handler] | None = None) -> None:
    """Writes all lines from INFO on to stderr, in this form. handlers: others that are to write in the same form."""
    ours = logging.StreamHandler()
    for handler in (ours, *(handlers or ())):
        handler.setFormatter(_Json() if form == "json" else _Text())
    root = logging.getLogger()
    root.handlers[:] = [ours]
    root.setLevel(logging.INFO)
    logging.getLogger("alembic").setLevel(logging.WARNING)  # it tells of every part that it loads


class _Text(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        ids = " ".join(f"{name}={value}" for name, value in _ids.get().items())
        return f"{line} [{ids}]" if ids else line


class _Json(logging.Formatter):
    """`time` is RFC 3339 in UTC; fields that a call named in `extra` come along."""

    def format(self, record: logging.LogRecord) -> str:
        told = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_ids.get(),
            **{name: value for name, value in vars(record).items() if name not in _STANDARD},
        }
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        return json.dumps(told, ensure_ascii=False, default=str)
