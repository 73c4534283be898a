"""Verbs that start a part of the product, or all of it."""

import os
import sys
import tempfile
import threading
from pathlib import Path
from typing import Annotated, Literal

import typer

from services.commands.common import verb
from services.settings import Settings

app = typer.Typer()


@app.command()
@verb
def up(
    home: Annotated[Path | None, typer.Option(help="folder of database, artifacts, caches; default ~/.bgpanet")] = None,
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: a free one")] = 8080,
    workers: Annotated[int, typer.Option(min=0, max=64, help="worker processes")] = 1,
) -> None:
    """Start API, dashboard, scheduler, workers and queue on this machine, until Ctrl-C."""
    from services import local

    settings = Settings.load()
    if home is not None:
        settings = Settings.load({**os.environ, "BGPANET_HOME": str(home)})
    local.up(settings, local.UpOptions(host=host, port=port, workers=workers), lambda text: print(text, flush=True))


@app.command()
@verb
def api(
    host: Annotated[str, typer.Option()] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8080,
    processes: Annotated[int, typer.Option(min=1, max=64)] = 1,
    threads: Annotated[int, typer.Option(min=1, max=64, help="of each process, for requests")] = 8,
) -> None:
    """Serve the REST API and the dashboard (gunicorn). Event streams have threads besides those for requests."""
    threads += Settings.load().streams
    counts = tempfile.mkdtemp(prefix="bgpanet-metrics-", dir=_shared_memory())
    gunicorn = [sys.executable, "-m", "gunicorn", "services.web:create_app()", "--worker-class", "gthread"]
    options = ["--bind", f"{host}:{port}", "--workers", str(processes), "--threads", str(threads)]
    options += ["--config", "python:services.serving"]
    timeouts = ["--graceful-timeout", "5", "--timeout", "120", "--worker-tmp-dir", _shared_memory()]
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": counts}  # services.serving removes it
    os.execve(sys.executable, [*gunicorn, *options, *timeouts], environment)  # noqa: S606 - our own command


def _shared_memory() -> str:
    return "/dev/shm" if Path("/dev/shm").is_dir() else "/tmp"  # noqa: S108 - gunicorn's heartbeat, no data


@app.command()
@verb
def worker(
    name: Annotated[str | None, typer.Option(help="unique; default: host and process")] = None,
    slots: Annotated[int | None, typer.Option(min=1, max=64, help="default: one a GPU, or one on a CPU")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of a slot; default: its share")] = None,
    label: Annotated[list[str] | None, typer.Option(help="what jobs may ask for, e.g. room=2; repeatable")] = None,
) -> None:
    """Run jobs, one at a time in each slot. SIGTERM: write checkpoints, give the jobs back, leave."""
    from services.context import Context
    from services.worker import WorkerOptions, run_worker

    run_worker(Context(_begin("worker")), WorkerOptions(name, slots, threads, tuple(label or ())))


@app.command()
@verb
def scheduler() -> None:
    """Take back the jobs of dead workers, wake workers for waiting jobs."""
    import signal

    from services.context import Context
    from services.scheduler import run_scheduler

    settings = _begin("scheduler")
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    run_scheduler(Context(settings), stopping)


@app.command()
@verb
def migrate() -> None:
    """Bring the database to the present schema."""
    from services.migration import migrate as run

    run(Settings.load().database_url)


@app.command()
@verb
def demo(
    home: Annotated[Path, typer.Option(help="the demo's own folder; emptied first")],
    data: Annotated[Path | None, typer.Option(help="a HAM10000 folder; without: drawn lesions")] = None,
) -> None:
    """Start the product, train, cross-validate and predict through its API, print the results, stop."""
    from services.demo import run_demo

    raise typer.Exit(run_demo(home, data))


def _begin(part: Literal["worker", "scheduler"]) -> Settings:
    """What a process that serves no requests lets operators see of itself: logs, metrics, traces."""
    import bgpanet
    from services.telemetry import logs, metrics, tracing

    settings = Settings.load()
    logs.configure(settings.log_format)
    metrics.begin(part)
    if settings.metrics_port is not None:
        metrics.serve(settings.metrics_host, settings.metrics_port)
    tracing.start(settings.traces_url, part, bgpanet.__version__)
    return settings
