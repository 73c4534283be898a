"""The library's own command line: `python -m bgpanet train SPEC --output DIR`."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from bgpanet.events import ArtifactWritten, Event, Failure, Log, Progress, Report, Result
from bgpanet.runner import Run, execute
from bgpanet.text import duration, figures_line

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Train, cross-validate and apply BGPANet, without a service."
)

SpecFile = Annotated[
    Path, typer.Argument(help="YAML or JSON; fields as in bgpanet/specs.py, with `data: {format, path}`")
]
Output = Annotated[Path, typer.Option(help="folder of the results; the same folder again goes on where it stopped")]
Cache = Annotated[Path | None, typer.Option(help="folder of decoded pixels; default: OUTPUT/cache")]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads; default: all cores")]


@app.command()
def train(spec: SpecFile, output: Output, cache: Cache = None, threads: Threads = None) -> None:
    """Train on one split and report on its test part."""
    _run(Run("train", spec, output, cache or output / "cache", threads))


@app.command("cross_validate")
def cross_validate(spec: SpecFile, output: Output, cache: Cache = None, threads: Threads = None) -> None:
    """Train once for each fold and report each and all together."""
    _run(Run("cross_validate", spec, output, cache or output / "cache", threads))


@app.command()
def study(spec: SpecFile, output: Output, cache: Cache = None, threads: Threads = None) -> None:
    """Train every variant on every fold and test each against the reference."""
    _run(Run("study", spec, output, cache or output / "cache", threads))


@app.command()
def predict(spec: SpecFile, output: Output, cache: Cache = None, threads: Threads = None) -> None:
    """Apply a trained model to every image of a data set."""
    _run(Run("predict", spec, output, cache or output / "cache", threads))


@app.command()
def register(spec: SpecFile, output: Output, cache: Cache = None, threads: Threads = None) -> None:
    """Check a data set and pack it, as a service does before it is used."""
    _run(Run("register", spec, output, cache or output / "cache", threads))


def _run(run: Run) -> None:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Bar(*columns, TextColumn("{task.fields[eta]} {task.fields[note]}"), console=console) as bar:
        status = execute(run, _drawn(bar, run.kind))
    sys.exit(status)


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
