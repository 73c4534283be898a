"""The library's own command line: `python -m bgpanet train SPEC --output DIR`."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from bgpanet.events import ArtifactWritten, Event, Failure, Log, Progress, Report, Result, pipe_report
from bgpanet.runner import FAILED, Run, execute, leave, process_number, start_together
from bgpanet.text import duration, figures_line

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Train, cross-validate and apply BGPANet, without a service."
)

SpecFile = Annotated[Path, typer.Argument(help="YAML or JSON; fields as in bgpanet/specs, with `data: {format, path}`")]
Output = Annotated[Path, typer.Option(help="folder of the results; the same folder again goes on where it stopped")]
Cache = Annotated[Path | None, typer.Option(help="folder of decoded pixels; default: OUTPUT/cache")]
CacheGB = Annotated[
    float | None, typer.Option(min=0, help="decoded pixels kept, in GB; the least recently used go; default: all")
]
Events = Annotated[
    Path | None, typer.Option(help="write events into this file, one JSON object a line, in place of a progress bar")
]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads of a process; default: all cores")]


@app.command()
def train(
    spec: SpecFile,
    output: Output,
    cache: Cache = None,
    cache_gb: CacheGB = None,
    threads: Threads = None,
    events: Events = None,
) -> None:
    """Train on one split and report on its test part."""
    _run("train", spec, output, cache, cache_gb, threads, events)


@app.command("cross_validate")
def cross_validate(
    spec: SpecFile,
    output: Output,
    cache: Cache = None,
    cache_gb: CacheGB = None,
    threads: Threads = None,
    events: Events = None,
) -> None:
    """Train once for each fold and report each and all together."""
    _run("cross_validate", spec, output, cache, cache_gb, threads, events)


@app.command()
def study(
    spec: SpecFile,
    output: Output,
    cache: Cache = None,
    cache_gb: CacheGB = None,
    threads: Threads = None,
    events: Events = None,
) -> None:
    """Train every variant on every fold and test each against the reference."""
    _run("study", spec, output, cache, cache_gb, threads, events)


@app.command()
def predict(
    spec: SpecFile,
    output: Output,
    cache: Cache = None,
    cache_gb: CacheGB = None,
    threads: Threads = None,
    events: Events = None,
) -> None:
    """Apply a trained model to every image of a data set."""
    _run("predict", spec, output, cache, cache_gb, threads, events)


@app.command()
def evaluate(
    spec: SpecFile,
    output: Output,
    cache: Cache = None,
    cache_gb: CacheGB = None,
    threads: Threads = None,
    events: Events = None,
) -> None:
    """Figures of a trained model on labelled images that had no part in its training."""
    _run("evaluate", spec, output, cache, cache_gb, threads, events)


@app.command()
def explain(
    spec: SpecFile,
    output: Output,
    cache: Cache = None,
    cache_gb: CacheGB = None,
    threads: Threads = None,
    events: Events = None,
) -> None:
    """Show what a trained model looked at, as images and numbers."""
    _run("explain", spec, output, cache, cache_gb, threads, events)


@app.command()
def register(spec: SpecFile, output: Output, threads: Threads = None, events: Events = None) -> None:
    """Check a data set and pack it, as a service does before it is used."""
    _run("register", spec, output, None, None, threads, events)


def _run(
    kind: str,
    spec: Path,
    output: Path,
    cache: Path | None,
    cache_gb: float | None,
    threads: int | None,
    events: Path | None,
) -> None:
    limit = None if cache_gb is None else round(cache_gb * 1e9)
    run = Run(kind, spec, output, cache or output / "cache", threads, limit)
    if (status := start_together(run, events)) is not None:
        sys.exit(FAILED if status < 0 else status)
    if events is not None:
        with events.open("ab", buffering=0) as file:
            status = execute(run, pipe_report(file.fileno()))
        leave(status)
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    note, others = TextColumn("{task.fields[eta]} {task.fields[note]}"), bool(process_number())
    with Bar(*columns, note, console=console, disable=others) as bar:
        status = execute(run, _drawn(bar, run.kind))
    leave(status)


def _drawn(bar: Bar, kind: str) -> Report:
    """A report that draws a progress bar on standard error and prints results on standard output."""
    task = bar.add_task(kind, total=1.0, eta="", note="")

    def report(event: Event) -> None:
        if isinstance(event, Progress):
            epoch = f"epoch {event.epoch}/{event.epochs} " if event.epoch else ""
            eta = f"{duration(event.eta_seconds)} left" if event.eta_seconds is not None else ""
            bar.update(task, completed=event.fraction, eta=eta, note=escape(f"{epoch}{event.message}"))
        elif isinstance(event, Log):
            bar.console.print(
                escape(event.message), style={"info": "dim", "warning": "yellow", "error": "red"}[event.level]
            )
        elif isinstance(event, Failure):
            bar.console.print(escape(f"failed ({event.reason}): {event.message}"), style="bold red")
        elif isinstance(event, ArtifactWritten):
            bar.console.print(escape(f"wrote {event.path}"), style="dim")
        elif isinstance(event, Result):
            bar.update(task, completed=1.0, eta="", note="")
            print(figures_line(event.summary))

    return report


if __name__ == "__main__":
    app()
