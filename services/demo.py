"""The whole product once, through its own API: what `make demo` runs."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from bgpanet.data import synthetic
from bgpanet.text import duration, figures_line, interval
from services.client import ENDED, Client, JobHandle
from services.errors import ServiceError
from services.progress import JobBars

MARKER = ".bgpanet-demo"
WORKERS = 2
GROUPS_PER_CLASS = 100  # of real data: a stated subset, so that the demo stays short
FOLDS = 5

console = Console(width=None if sys.stdout.isatty() else 120)


@dataclass(frozen=True)
class Plan:
    """What the demo does with which data."""

    data: Path
    new_images: Path
    spec: Mapping[str, Any]
    is_synthetic: bool


def run_demo(home: Path, data: Path | None) -> int:
    """Returns 0 only if every job succeeded and nothing leaked. The service's files stay in `home`."""
    home = home.absolute()
    began = time.monotonic()
    _empty(home)
    plan = _plan(home, data)
    with _service(home) as client:
        console.print(f"dashboard [bold]{client.url}[/] while this runs; token in {home / 'token'}")
        jobs = _work(client, plan)
        succeeded = _print_results(jobs)
        command = f"{_short(Path(sys.executable).with_name('bgpanet'))} up --home {_short(home)}"
        console.print(f"results stay in {escape(str(home))}; to look at them: [bold]{escape(command)}[/]")
        console.print(f"the dashboard was at {client.url}")
    if plan.is_synthetic:
        console.print("All images were drawn by program: these figures say nothing about lesions.")
        console.print("[bold]make demo DATA=…/ham10000[/] does the same on a folder of real HAM10000 images.")
    console.print(f"done in {duration(time.monotonic() - began)}")
    return 0 if succeeded else 1


# ── Before ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _empty(home: Path) -> None:
    """Makes the demo's folder empty; refuses to touch one that is not its own."""
    if home.exists() and any(home.iterdir()) and not (home / MARKER).exists():
        raise ServiceError(f"{home} is not a demo's folder; name an empty one")
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    (home / MARKER).touch()


def _plan(home: Path, data: Path | None) -> Plan:
    spec = {
        "model": {"name": "bgpanet_micro"},
        "training": {"epochs": 30, "batch_size": 32, "learning_rate": 1e-3, "warmup_epochs": 2, "patience": 30},
    }
    new_images = home / "drawn" / "new"
    with Progress(console=console) as bar:
        if data is None:
            data, synthetic_data = home / "drawn" / "lesions", True
            task = bar.add_task("drawing lesions", total=None)
            synthetic.draw(data, progress=lambda done, total: bar.update(task, completed=done, total=total))
        else:
            synthetic_data = False
            chosen = f"at most {GROUPS_PER_CLASS} lesions of each class"
            console.print(f"real images from {data}: a stratified subset, {chosen}")
            spec["subset"] = {"max_groups_per_class": GROUPS_PER_CLASS}
        if synthetic_data:
            synthetic.draw_unlabelled(new_images, count=60, seed=1, broken=1)
    return Plan(data, new_images if synthetic_data else data, spec, synthetic_data)


@contextlib.contextmanager
def _service(home: Path) -> Iterator[Client]:
    """The product in its embedded form; stopped at the end, whatever happens."""
    command = [
        sys.executable,
        "-m",
        "services.cli",
        "up",
        "--home",
        str(home),
        "--port",
        "0",
        "--workers",
        str(WORKERS),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=_clean_environment())  # noqa: S603
    try:
        assert process.stdout is not None  # noqa: S101 - a pipe was asked for
        line = process.stdout.readline().strip()
        if not line.startswith("ready: "):
            raise ServiceError(f"the service did not start; see {home / 'logs'}")
        token = (home / "token").read_text(encoding="utf-8").strip()
        with Client(line.removeprefix("ready: "), token) as client:
            yield client
    finally:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(15)
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _clean_environment() -> dict[str, str]:
    """Without the settings of another installation."""
    return {name: value for name, value in os.environ.items() if not name.startswith("BGPANET_")}


# ── The work ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _work(client: Client, plan: Plan) -> list[JobHandle]:
    with JobBars(console) as bars:
        lesions = client.add_dataset("lesions", "ham10000", plan.data, on_update=bars.update)
        images = "new-images" if plan.is_synthetic else "lesions"
        if plan.is_synthetic:
            client.add_dataset(images, "folder", plan.new_images, on_update=bars.update)
    console.print(f"data set: {lesions['images']} images of {lesions['groups']} {lesions['group_unit']} groups")
    training = client.submit("train", dataset="lesions", spec=plan.spec, name="training")
    validation = client.submit(
        "cross_validate",
        dataset="lesions",
        spec={**plan.spec, "split": {"folds": FOLDS}},
        name=f"{FOLDS}-fold cross-validation",
    )
    jobs = [training, validation]
    with JobBars(console) as bars:
        for job in jobs:
            bars.add(job)
        prediction: JobHandle | None = None
        while any(job.state not in ENDED for job in jobs):
            time.sleep(0.5)
            for job in jobs:
                bars.update(job.refresh())
            if training.state == "succeeded" and prediction is None:
                prediction = client.submit(
                    "predict", dataset=images, spec={"model": training.id}, name="batch inference", priority=10
                )
                jobs.append(prediction)
                bars.add(prediction)
    return jobs


# ── After ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _print_results(jobs: list[JobHandle]) -> bool:
    """Prints every job with state, duration and figures. True where all is as it should be."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("job", "state", "took", "balanced accuracy (95 %)", "accuracy", "macro F1"):
        table.add_column(column)
    for job in jobs:
        table.add_row(job.values["name"], job.state, _took(job), *_figures(job))
        for fold in job.children():
            table.add_row(f"  {fold.values['name'].rpartition(', ')[2]}", fold.state, _took(fold), *_figures(fold))
    console.print(table)
    for job in jobs:
        for line in _remarks(job):
            console.print(f"{escape(job.values['name'])}: {escape(line)}")
    succeeded = len(jobs) == 3 and all(job.state == "succeeded" for job in jobs)
    leaking = sum(job.summary["leakage"]["groups"] for job in jobs if "leakage" in job.summary)
    console.print(f"leaking lesions: {leaking}")
    return succeeded and leaking == 0


def _figures(job: JobHandle) -> list[str]:
    figures = job.summary.get("pooled") or job.summary.get("figures")
    if figures is None:
        return []
    bounds = job.summary["intervals"]["balanced_accuracy"]
    return [interval(figures["balanced_accuracy"], bounds), f"{figures['accuracy']:.3f}", f"{figures['macro_f1']:.3f}"]


def _remarks(job: JobHandle) -> list[str]:
    if job.state != "succeeded":
        return [f"{job.values['reason']}: {job.values['error']}"]
    figures = job.summary.get("pooled") or job.summary.get("figures")
    if figures is None:
        return [figures_line(job.summary)]
    constant = figures["constant_predictor"]
    told = f"balanced accuracy {constant['balanced_accuracy']:.3f}, accuracy {constant['accuracy']:.3f}"
    return [f"always saying {constant['class']} would reach {told}"]


def _took(job: JobHandle) -> str:
    started, finished = job.values["started_at"], job.values["finished_at"]
    if not started or not finished:
        return ""
    return duration((datetime.fromisoformat(finished) - datetime.fromisoformat(started)).total_seconds())


def _short(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
