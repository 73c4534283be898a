"""How jobs on the service come along, shown to whoever waits: bars in a terminal, a card in a notebook, else lines."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from time import monotonic
from types import TracebackType
from typing import Any, Protocol, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn

from bgpanet.text import duration
from services.client import JobHandle

LINE_SECONDS = 10.0  # at least between two lines of a job whose state is the same


class Display(Protocol):
    """Shows jobs and files on their way."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def update(self, job: JobHandle) -> None:
        """Shows what the service said of a job last."""

    def sent(self, name: str, sent: int, size: int) -> None:
        """Shows how much of a file has gone over the line."""


def display(console: Console) -> Display:
    """Bars where the console is a terminal, else lines."""
    return JobBars(console) if console.is_terminal else JobLines(console)


@contextmanager
def shown(progress: bool | None) -> Iterator[Callable[[JobHandle], None]]:
    """Shows one job that is waited for; see `JobHandle.wait`."""
    console = Console(stderr=True)
    in_notebook = _in_notebook()
    if progress is False or (progress is None and not console.is_terminal and not in_notebook):
        yield lambda _: None
    elif in_notebook:
        yield Card().update
    else:
        with display(console) as made:
            yield made.update


class JobBars:
    """A bar for each job: name, fraction, elapsed time, state, time left."""

    def __init__(self, console: Console) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
        self._bar = Progress(*columns, TextColumn("{task.fields[note]}"), console=console)
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def add(self, job: JobHandle) -> None:
        """A bar for one more job."""
        self._tasks[job.id] = self._bar.add_task(escape(job.values["name"]), total=1.0, note=job.state)

    def update(self, job: JobHandle) -> None:
        """Shows what the service said of a job last; one that is new here gets its bar."""
        if job.id not in self._tasks:
            self.add(job)
        self._bar.update(self._tasks[job.id], completed=job.values["progress"]["fraction"], note=escape(_note(job)))

    def sent(self, name: str, sent: int, size: int) -> None:
        """Shows how much of a file has gone over the line."""
        if name not in self._tasks:
            self._tasks[name] = self._bar.add_task(escape(name), total=1.0, note="")
        self._bar.update(self._tasks[name], completed=sent / size if size else 1.0, note=_of(sent, size))


class JobLines:
    """A line whenever a job's state is another one, and now and then between."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._said: dict[str, tuple[str, float]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def update(self, job: JobHandle) -> None:
        """Says what the service said of a job last, if it is time for it."""
        self._say(job.id, job.state, f"{job.values['name']}: {job.values['progress']['fraction']:.0%}  {_note(job)}")

    def sent(self, name: str, sent: int, size: int) -> None:
        """Says how much of a file has gone over the line, if it is time for it."""
        self._say(name, "whole" if sent >= size else "part", f"{name}: {_of(sent, size)}")

    def _say(self, what: str, state: str, line: str) -> None:
        before, at = self._said.get(what, ("", 0.0))
        if state == before and monotonic() - at < LINE_SECONDS:
            return
        self._said[what] = (state, monotonic())
        self._console.print(escape(line), highlight=False, soft_wrap=True)


class Card:
    """A notebook's output that shows a job as its card, and is replaced."""

    def __init__(self) -> None:
        self._shown: Any = None

    def update(self, job: JobHandle) -> None:
        """Shows what the service said of a job last."""
        if self._shown is None:
            self._shown = import_module("IPython.display").display(job, display_id=True)
        else:
            self._shown.update(job)


def _in_notebook() -> bool:
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return hasattr(shell, "kernel")  # which the one in a terminal has not


def _of(done: int, size: int) -> str:
    unit, name = (1e6, "MB") if size >= 1e6 else (1e3, "kB")
    return f"{done / unit:,.0f} of {size / unit:,.0f} {name}"


def _note(job: JobHandle) -> str:
    progress = job.values["progress"]
    if job.state != "running":
        return job.state
    parts = [job.state]
    if progress["epoch"]:
        parts.append(f"epoch {progress['epoch']}/{progress['epochs']}")
    if progress["eta_seconds"] is not None:
        parts.append(f"{duration(progress['eta_seconds'])} left")
    parts.append(progress["message"])
    return "  ".join(part for part in parts if part)
