"""Verbs that start a part of the product, or all of it."""

import os
import sys
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
    """Start API, dashboard, scheduler, workers and queue on this machine, until Ctrl-C.

    Example: bgpanet up --port 8080 --workers 2
    """
    from services import local

    settings = Settings.load()
    if home is not None:
        settings = Settings.load({**os.environ, "BGPANET_HOME": str(home)})
    local.up(settings, local.UpOptions(host=host, port=port, workers=workers), lambda text: print(text, flush=True))


@app.command()
@verb
def api(
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="to listen on")] = 8080,
    processes: Annotated[int, typer.Option(min=1, max=64, help="that serve")] = 2,
    threads: Annotated[int, typer.Option(min=1, max=64, help="of each process, for requests")] = 8,
) -> None:
    """Serve the REST API and the dashboard (gunicorn).

    Event streams have threads besides those for requests.

    Example: bgpanet api --host 0.0.0.0 --processes 4
    """
    from services.production import refuse_if_unsafe
    from services.telemetry.counts import take_folder

    settings = Settings.load()
    refuse_if_unsafe(settings, host)
    threads += settings.streams
    counts = str(take_folder(Path(_shared_memory())))
    gunicorn = [sys.executable, "-m", "gunicorn", "services.web:create_app()", "--worker-class", "gthread"]
    options = ["--bind", f"{host}:{port}", "--workers", str(processes), "--threads", str(threads)]
    options += ["--config", "python:services.serving"]
    options += ["--limit-request-line", "8190"]  # the most; a search in another script than Latin is long when encoded
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
    gpus_per_slot: Annotated[int, typer.Option(min=1, max=64, help="a job may have so many: resources.gpus")] = 1,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of a slot; default: its share")] = None,
    label: Annotated[list[str] | None, typer.Option(help="what jobs may ask for, e.g. room=2; repeatable")] = None,
    free_gpus: Annotated[bool, typer.Option("--free-gpus", help="GPUs that no other such worker here has")] = False,
) -> None:
    """Run jobs, one at a time in each slot.

    At SIGTERM it writes checkpoints, gives the jobs back, and leaves.

    Example: bgpanet worker --slots 2 --label room=2
    """
    from services.context import Context
    from services.production import refuse_if_unsafe
    from services.worker import WorkerOptions, run_worker

    settings = _begin("worker")
    refuse_if_unsafe(settings)
    run_worker(Context(settings), WorkerOptions(name, slots, gpus_per_slot, threads, tuple(label or ()), free_gpus))


@app.command()
@verb
def scheduler() -> None:
    """Take back the jobs of dead workers, wake workers for waiting jobs.

    Example: bgpanet scheduler
    """
    import signal

    from services.context import Context
    from services.production import refuse_if_unsafe
    from services.scheduler import run_scheduler

    settings = _begin("scheduler")
    refuse_if_unsafe(settings)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    run_scheduler(Context(settings), stopping)


@app.command()
@verb
def migrate(
    back_to: Annotated[str | None, typer.Option(help="an earlier version's schema, e.g. 0011; nothing may run")] = None,
) -> None:
    """Bring the database to the schema of this version, or back to that of an earlier one.

    A schema of a later version stays as it is. Back: what the earlier schema has no place for is deleted.

    Example: bgpanet migrate
    """
    from services import migration

    url = Settings.load().database_url
    if back_to is None:
        migration.migrate(url)
    else:
        migration.take_back(url, back_to)
    print(f"the database is at {migration.revision_of(url)}")


@app.command("first-token")
@verb
def first_token() -> None:
    """Make the first admin's token, straight in the database, and print it. Works only while there is none.

    Example: bgpanet first-token
    """
    from services.context import Context
    from services.production import first_token as make

    print(make(Context(Settings.load())))


@app.command()
@verb
def demo(
    home: Annotated[Path, typer.Option(help="the demo's own folder; emptied first")],
    data: Annotated[Path | None, typer.Option(help="a HAM10000 folder; without: drawn lesions")] = None,
) -> None:
    """Start the product, train, cross-validate and predict through its API, print the results, stop.

    Example: bgpanet demo --home ./demo
    """
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
