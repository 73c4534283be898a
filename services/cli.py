"""The command `bgpanet`. Each verb parses, calls the client (or starts a part), and prints; `--json` prints JSON."""

import json
import logging
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, NoReturn, ParamSpec, get_args

import httpx
import typer
import yaml
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bgpanet.errors import BGPANetError
from bgpanet.specs import SPECS, AppliedSpec, Kind, TrainSpec, parse_yaml
from bgpanet.text import figures_brief, figures_line
from services.client import ApiError, Client, JobFailed, JobHandle
from services.errors import ServiceError
from services.settings import Settings

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Train, cross-validate and apply skin-lesion classifiers. `bgpanet up` starts everything on this machine; "
    "the other commands talk to BGPANET_URL with BGPANET_TOKEN, else to what was started here.",
)
dataset_app = typer.Typer(no_args_is_help=True, help="Register and look at data sets.")
token_app = typer.Typer(no_args_is_help=True, help="Make and revoke tokens (admins).")
app.add_typer(dataset_app, name="dataset")
app.add_typer(token_app, name="token")

# Where nobody sees a terminal's width, lines are for programs and files.
console = Console(width=None if sys.stdout.isatty() else 1000)  # in a pipe a row stays a line
errors = Console(stderr=True)

Json = Annotated[bool, typer.Option("--json", help="print JSON")]
JobId = Annotated[str, typer.Argument(metavar="ID", help="a job's id")]
P = ParamSpec("P")

FAILED, USAGE, UNREACHABLE = 1, 2, 3
"""Exit statuses besides 0: a job failed or was refused, the command was wrong, the service can't be reached."""


def _told(function: Callable[P, None]) -> Callable[P, None]:
    """Errors become one message and an exit status."""

    @wraps(function)
    def command(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            function(*args, **kwargs)
        except ApiError as error:
            _stop(str(error), UNREACHABLE if error.status == 0 else FAILED)
        except (JobFailed, ServiceError, BGPANetError) as error:
            _stop(str(error), FAILED)
        except (OSError, ValueError, httpx.HTTPError) as error:
            _stop(f"{type(error).__name__}: {error}", USAGE)
        except KeyboardInterrupt:
            _stop("interrupted; jobs go on", 130)

    return command


def _stop(message: str, status: int) -> NoReturn:
    errors.print(f"[bold red]error:[/] {escape(message)}")
    raise typer.Exit(status)


def _show(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def _table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, Callable[[Mapping[str, Any]], object]]) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in columns:
        table.add_column(name)
    for row in rows:
        table.add_row(*[escape(str(cell(row))) for cell in columns.values()])
    console.print(table)


# ── Starting parts ────────────────────────────────────────────────────────────────────────────────────────────────


@app.command()
@_told
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
@_told
def api(
    host: Annotated[str, typer.Option()] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8080,
    processes: Annotated[int, typer.Option(min=1, max=64)] = 1,
    threads: Annotated[int, typer.Option(min=1, max=64, help="of each process")] = 8,
) -> None:
    """Serve the REST API and the dashboard (gunicorn)."""
    gunicorn = [sys.executable, "-m", "gunicorn", "services.web:create_app()", "--worker-class", "gthread"]
    options = ["--bind", f"{host}:{port}", "--workers", str(processes), "--threads", str(threads)]
    timeouts = ["--graceful-timeout", "5", "--timeout", "120", "--worker-tmp-dir", _shared_memory()]
    os.execv(sys.executable, [*gunicorn, *options, *timeouts])  # noqa: S606 - our own command


def _shared_memory() -> str:
    return "/dev/shm" if Path("/dev/shm").is_dir() else "/tmp"  # noqa: S108 - gunicorn's heartbeat, no data


@app.command()
@_told
def worker(
    name: Annotated[str | None, typer.Option(help="unique; default: host and process")] = None,
    slots: Annotated[int | None, typer.Option(min=1, max=64, help="default: one a GPU, or one on a CPU")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of a slot; default: its share")] = None,
    label: Annotated[list[str] | None, typer.Option(help="what jobs may ask for, e.g. room=2; repeatable")] = None,
) -> None:
    """Run jobs, one at a time in each slot. SIGTERM: write checkpoints, give the jobs back, leave."""
    from services.context import Context
    from services.worker import WorkerOptions, run_worker

    _log()
    run_worker(Context(Settings.load()), WorkerOptions(name, slots, threads, tuple(label or ())))


@app.command()
@_told
def scheduler() -> None:
    """Take back the jobs of dead workers, wake workers for waiting jobs."""
    import signal

    from services.context import Context
    from services.scheduler import run_scheduler

    _log()
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    run_scheduler(Context(Settings.load()), stopping)


@app.command()
@_told
def migrate() -> None:
    """Bring the database to the present schema."""
    from services.migration import migrate as run

    run(Settings.load().database_url)


@app.command()
@_told
def demo(
    home: Annotated[Path, typer.Option(help="the demo's own folder; emptied first")],
    data: Annotated[Path | None, typer.Option(help="a HAM10000 folder; without: drawn lesions")] = None,
) -> None:
    """Start the product, train, cross-validate and predict through its API, print the results, stop."""
    from services.demo import run_demo

    raise typer.Exit(run_demo(home, data))


def _log() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")


# ── Data sets ─────────────────────────────────────────────────────────────────────────────────────────────────────

_DATASET_COLUMNS: dict[str, Callable[[Mapping[str, Any]], object]] = {
    "name": lambda d: f"{d['name']}@{d['version']}" if d["version"] else d["name"],
    "state": lambda d: d["state"],
    "format": lambda d: d["format"],
    "images": lambda d: d["images"] if d["digest"] else "",
    "groups": lambda d: f"{d['groups']} {d['group_unit']}s" if d["digest"] else "",
    "digest": lambda d: (d["digest"] or "")[:12],
    "id": lambda d: d["id"],
    "": lambda d: "synthetic" if d["synthetic"] else "",
}
_LEVELS = {"refused": "red", "excluded": "yellow", "warned": "yellow"}


def _findings(findings: Sequence[Mapping[str, Any]], to: Console) -> None:
    for finding in findings:
        where = f"{finding['where']}: " if finding["where"] else ""
        to.print(f"[{_LEVELS[finding['level']]}]{finding['level']}[/] {escape(where)}{escape(finding['what'])}")


@dataset_app.command("add")
@_told
def dataset_add(
    name: str,
    format: Annotated[str, typer.Option(help="how its files lie: one of `bgpanet dataset formats`")],
    path: Annotated[
        str, typer.Option(help="a folder that workers see, s3://bucket/prefix, or a zip or tar, which is uploaded")
    ],
    licence: Annotated[str | None, typer.Option(help="where the files do not tell it")] = None,
    citation: Annotated[str | None, typer.Option(help="where the files do not tell it")] = None,
    lock: Annotated[
        float | None, typer.Option(min=0.05, max=0.5, help="share of it that no training ever sees, for a last test")
    ] = None,
    wait: Annotated[bool, typer.Option(help="until it is ready, with progress")] = True,
    as_json: Json = False,
) -> None:
    """Check and register a data set. Example: bgpanet dataset add ham --format ham10000 --path ./HAM10000

    Other content under the same name is its next version; the same content again is the version that is there.
    """
    from services.progress import JobBars

    with Client() as client, JobBars(errors) as bars:
        made = client.add_dataset(
            name,
            format,
            path,
            licence=licence,
            citation=citation,
            lock=lock,
            wait=wait,
            on_update=bars.update,
            on_sent=lambda sent, size: bars.sent(Path(path).name, sent, size),
        )
    if as_json:
        _show(made)
        return
    _table([made], _DATASET_COLUMNS)
    _findings(made["findings"], errors)


@dataset_app.command("list")
@_told
def dataset_list(as_json: Json = False) -> None:
    """All data sets in every state, newest first."""
    with Client() as client:
        rows = list(client.datasets())
    _show(rows) if as_json else _table(rows, _DATASET_COLUMNS)


@dataset_app.command("show")
@_told
def dataset_show(name: str, as_json: Json = False) -> None:
    """One data set with its classes and findings."""
    with Client() as client:
        found = client.dataset(name)
    if as_json:
        _show(found)
        return
    _table([found], _DATASET_COLUMNS)
    _table(
        found["class_counts"],
        {"class": lambda c: c["class"], "images": lambda c: c["images"], "groups": lambda c: c["groups"]},
    )
    for field in ("licence", "citation", "error"):
        if found[field]:
            console.print(f"{field}: {escape(found[field])}")
    if found["locked"]:
        locked, uses = found["locked"], found["locked_uses"]
        console.print(f"locked part: {locked['images']} images of {locked['groups']} {found['group_unit']}s")
        for use in uses:
            console.print(
                f"  used {use['at']} by {escape(use['by'])}: job {use['job']}, model {use['model']}, {use['state']}"
            )
        if not uses:
            console.print("  never used")
    if found["columns"]:
        console.print(f"columns: {escape(', '.join(found['columns']))}")
    who = {"registered": ("created_by", "created_at"), "removed": ("removed_by", "removed_at")}
    for what, (by, at) in who.items():
        if found[at]:
            console.print(f"{what} {found[at]} by {escape(found[by])}")
    _findings(found["findings"], console)


@dataset_app.command("formats")
@_told
def dataset_formats(
    name: Annotated[str | None, typer.Argument(help="tell all about this one")] = None, as_json: Json = False
) -> None:
    """The formats that can be registered. Example: bgpanet dataset formats csv"""
    from bgpanet.data.readers import described

    texts = described()
    if name is not None and name not in texts:
        _stop(f"unknown format {name!r}; known: {', '.join(texts)}", USAGE)
    if as_json:
        _show(texts if name is None else {name: texts[name]})
    elif name is not None:
        print(texts[name])
    else:
        rows = [{"format": known, "what": text.partition("\n")[0]} for known, text in texts.items()]
        _table(rows, {"format": lambda r: r["format"], "what": lambda r: r["what"]})


@dataset_app.command("remove")
@_told
def dataset_remove(name: str, as_json: Json = False) -> None:
    """Delete a data set's files. What jobs on it were given can still be told; where none used it, all goes."""
    with Client() as client:
        client.remove_dataset(name)
    _show({"removed": name}) if as_json else print(f"removed {name}")


# ── Jobs ──────────────────────────────────────────────────────────────────────────────────────────────────────────

_JOB_COLUMNS: dict[str, Callable[[Mapping[str, Any]], object]] = {
    "id": lambda j: j["id"],
    "kind": lambda j: j["kind"],
    "name": lambda j: j["name"],
    "state": lambda j: j["state"] + (f" ({told})" if (told := _why(j)) else ""),
    "done": lambda j: f"{j['progress']['fraction']:.0%}",
    "figures": lambda j: figures_brief(j["summary"]) if j["summary"] else "",
}


def _why(job: Mapping[str, Any]) -> str:
    told = (job["reason"], "tried again" if job["superseded_by"] else None)
    return ", ".join(part for part in told if part)


@app.command()
@_told
def submit(
    kind: Annotated[str, typer.Argument(help=", ".join(get_args(Kind)))],
    dataset: Annotated[str, typer.Option(help="name (its newest version), name@version or id")],
    model: Annotated[str | None, typer.Option(help="a network's name; to apply a model, its training's id")] = None,
    file: Annotated[Path | None, typer.Option("-f", "--file", help="the spec, YAML or JSON")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="a field of the spec, e.g. training.epochs=20")
    ] = None,
    name: Annotated[str | None, typer.Option()] = None,
    priority: Annotated[int, typer.Option(min=-100, max=100)] = 0,
    after: Annotated[list[str] | None, typer.Option(help="id of a job that has to succeed first")] = None,
    time_limit: Annotated[
        str | None, typer.Option(help="of each run's work: 90s, 30m, 12h or 2d; it then fails, and a retry goes on")
    ] = None,
    on_failure: Annotated[
        str | None, typer.Option(help="of a fold or cell: finish_rest (the others go on) or fail_fast")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="wait and show progress")] = False,
    as_json: Json = False,
) -> None:
    """Queue a job.

    Example: bgpanet submit train --dataset ham --model bgpanet_micro --set training.epochs=20 --follow
    """
    spec = _spec(kind, file, model, settings or [])
    with Client() as client:
        job = client.submit(
            kind,
            dataset=dataset,
            spec=spec,
            name=name,
            priority=priority,
            after=after or (),
            time_limit=None if time_limit is None else _seconds(time_limit),
            on_failure=on_failure,
        )
        if follow:
            _follow(job)
        _show(job.values) if as_json else print(job.id)


def _seconds(text: str) -> int:
    """`90s`, `30m`, `12h`, `2d`, or a number of seconds."""
    unit = {"s": 1, "m": 60, "h": 3600, "d": 86400}.get(text[-1:], 0)
    number = text[:-1] if unit else text
    if not (number.isascii() and number.isdigit() and int(number) > 0):
        _stop(f"--time-limit {text}: must be a whole number with s, m, h or d", USAGE)
    return int(number) * (unit or 1)


def _spec(kind: str, file: Path | None, model: str | None, assignments: list[str]) -> dict[str, Any]:
    spec: dict[str, Any] = {}
    if file is not None:
        try:
            spec = parse_yaml(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            _stop(f"{file}: {error}", USAGE)
        if not isinstance(spec, dict):
            _stop(f"{file}: must hold a mapping of fields", USAGE)
    if model is not None:
        named = spec.get("model")
        applies = issubclass(SPECS.get(kind, TrainSpec), AppliedSpec)
        spec["model"] = {**named, "name": model} if isinstance(named, dict) and not applies else model
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals:
            _stop(f"--set {assignment}: must be field=value", USAGE)
        *parents, last = path.split(".")
        place = spec
        for parent in parents:
            inner = place.setdefault(parent, {})
            if isinstance(inner, str) and parent == "model":
                inner = place[parent] = {"name": inner}
            if not isinstance(inner, dict):
                _stop(f"--set {assignment}: {parent} is no group of fields", USAGE)
            place = inner
        try:
            place[last] = parse_yaml(text)
            json.dumps(place[last], allow_nan=False)
        except (yaml.YAMLError, TypeError, ValueError) as error:
            _stop(f"--set {assignment}: {error}", USAGE)
    return spec


@app.command("jobs")
@_told
def list_jobs(
    state: Annotated[str | None, typer.Option()] = None,
    kind: Annotated[str | None, typer.Option()] = None,
    dataset: Annotated[str | None, typer.Option()] = None,
    q: Annotated[str | None, typer.Option(help="part of the name")] = None,
    limit: Annotated[int, typer.Option(min=1)] = 20,
    as_json: Json = False,
) -> None:
    """The latest jobs."""
    wanted = {"state": state, "kind": kind, "dataset": dataset, "q": q}
    rows: list[Mapping[str, Any]] = []
    with Client() as client:
        for job in client.jobs(**{name: value for name, value in wanted.items() if value}):
            rows.append(job.values)
            if len(rows) >= limit:
                break
    _show(rows) if as_json else _table(rows, _JOB_COLUMNS)


@app.command("job")
@_told
def show_job(job_id: JobId, as_json: Json = False) -> None:
    """One job, with its folds and its latest events."""
    with Client() as client:
        job = client.job(job_id)
        children = [child.values for child in job.children()]
        if as_json:
            _show(job.values)
            return
        _table([job.values, *children], _JOB_COLUMNS)
        if (queue := job.values["queue"]) is not None:
            place = f"number {queue['position']} in the queue" if queue["position"] else "not in the queue yet"
            starts = queue["starts_in_seconds"]
            console.print(place + (f", starts in about {starts:.0f} s" if starts is not None else ""))
            for reason in queue["waits_for"]:
                console.print(f"waits: {escape(reason)}")
        for what in ("retry_of", "superseded_by", "cloned_from"):
            if job.values[what]:
                console.print(f"{what.replace('_', ' ')}: {job.values[what]}")
        for event in job.events():
            console.print(f"{event['at']}  {event['state']:<10} {escape(event['detail'])}")
        if job.values["error"]:
            errors.print(f"[red]{escape(job.values['error'])}[/]")


@app.command()
@_told
def watch(job_id: JobId, as_json: Json = False) -> None:
    """Follow a job with a progress bar until it ends."""
    with Client() as client:
        job = client.job(job_id)
        _follow(job)
        if as_json:
            _show(job.values)


def _follow(job: JobHandle) -> None:
    from services.progress import JobBars

    with JobBars(errors) as bars:
        bars.add(job)
        job.wait(on_update=bars.update, every=0.5)
    errors.print(escape(figures_line(job.summary)))


@app.command()
@_told
def logs(job_id: JobId, follow: Annotated[bool, typer.Option("-f", "--follow")] = False, as_json: Json = False) -> None:
    """What a job said; with --json one object a line."""
    import time

    from services.client import ENDED

    after = 0
    with Client() as client:
        job = client.job(job_id)
        while True:
            ended = job.refresh().state in ENDED
            while lines := job.logs(after):
                for line in lines:
                    text = json.dumps(line) if as_json else f"{line['at']} {line['level']:<7} {line['message']}"
                    print(text, flush=True)
                after = lines[-1]["id"]
            if not follow or ended:
                return
            time.sleep(1)


def _steer(job_id: str, action: Callable[[JobHandle], JobHandle], as_json: bool) -> None:
    """Does it, and prints the state that the job is in after that."""
    with Client() as client:
        job = action(client.job(job_id))
        _show(job.values) if as_json else print(job.state)


@app.command()
@_told
def cancel(job_id: JobId, as_json: Json = False) -> None:
    """End a job: at once where it waits, at its next step where it runs."""
    _steer(job_id, JobHandle.cancel, as_json)


@app.command()
@_told
def pause(job_id: JobId, as_json: Json = False) -> None:
    """Stop a job for now: at once where it waits, after a checkpoint where it runs. `resume` lets it go on."""
    _steer(job_id, JobHandle.pause, as_json)


@app.command()
@_told
def resume(job_id: JobId, as_json: Json = False) -> None:
    """Let a paused job go on."""
    _steer(job_id, JobHandle.resume, as_json)


@app.command()
@_told
def retry(job_id: JobId, follow: Annotated[bool, typer.Option("--follow")] = False, as_json: Json = False) -> None:
    """Try a job that failed or was cancelled again, as a new job, whose id is printed.

    It goes on from the last checkpoint; a cross-validation or study keeps what has succeeded.
    """
    with Client() as client:
        job = client.job(job_id).retry()
        if follow:
            _follow(job)
        _show(job.values) if as_json else print(job.id)


@app.command()
@_told
def clone(
    job_id: JobId,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="a field of the spec that changes, e.g. training.seed=1")
    ] = None,
    dataset: Annotated[str | None, typer.Option()] = None,
    name: Annotated[str | None, typer.Option()] = None,
    follow: Annotated[bool, typer.Option("--follow", help="wait and show progress")] = False,
    as_json: Json = False,
) -> None:
    """Submit a job like another one. Example: bgpanet clone ID --set training.learning_rate=3e-4"""
    changes = {field: value for field, value in (("dataset", dataset), ("name", name)) if value is not None}
    with Client() as client:
        job = client.job(job_id)
        job = job.clone(_spec(job.values["kind"], None, None, settings or []), **changes)
        if follow:
            _follow(job)
        _show(job.values) if as_json else print(job.id)


@app.command()
@_told
def priority(job_id: JobId, value: Annotated[int, typer.Argument(min=-100, max=100)], as_json: Json = False) -> None:
    """Give a job another place in the queue: higher comes first."""
    with Client() as client:
        job = client.job(job_id).set_priority(value)
        _show(job.values) if as_json else print(job.values["priority"])


@app.command()
@_told
def artifacts(job_id: JobId, as_json: Json = False) -> None:
    """The files of a job's result."""
    with Client() as client:
        rows = client.job(job_id).artifacts()
    if as_json:
        _show(rows)
        return
    _table(rows, {name: lambda row, name=name: row[name] for name in ("name", "size", "media_type", "sha256")})  # type: ignore[misc]


@app.command()
@_told
def download(
    job_id: JobId,
    name: str,
    to: Annotated[Path, typer.Option(help="file or folder")] = Path(),
    as_json: Json = False,
) -> None:
    """Save a file of a job's result, checked against its digest."""
    with Client() as client:
        path = client.job(job_id).download(name, to)
    _show({"name": name, "path": str(path)}) if as_json else print(path)


@app.command()
@_told
def compare(
    job_ids: Annotated[
        list[str], typer.Argument(metavar="ID ID…", help="cross-validations; the first is the reference")
    ],
    as_json: Json = False,
) -> None:
    """Test cross-validations against the first one, on the same folds: differences, intervals, corrected p-values."""
    from services.comparison import compare_jobs

    if len(job_ids) < 2:
        _stop("name two or more jobs", USAGE)
    with Client() as client, errors.status("fetching predictions and testing"):
        rows = compare_jobs(client, job_ids)
    if as_json:
        _show(rows)
        return
    columns: dict[str, Callable[[Mapping[str, Any]], object]] = {
        "job": lambda row: row["system"],
        "figure": lambda row: row["figure"].replace("_", " "),
        "mean": lambda row: f"{row['mean']:.3f}",
        "reference": lambda row: f"{row['reference_mean']:.3f}",
        "difference (95 %)": lambda row: "{:+.3f} ({:+.3f} to {:+.3f})".format(row["difference"], *row["interval"]),
        "p": lambda row: f"{row['p']:.3f}",
        "p (Holm)": lambda row: f"{row['p_holm']:.3f}",
    }
    _table(rows, columns)


@app.command()
@_told
def workers(as_json: Json = False) -> None:
    """Worker slots and what they do."""
    from services.fleet import Weights

    with Client() as client:
        rows = client.workers()
    names = ("name", "device", "state", "job", "why", "seen_at")
    columns: dict[str, Any] = {n: lambda row, n=n: row[n] or "" for n in names}
    columns["labels"] = lambda row: ", ".join(row["labels"])
    columns["memory"] = lambda row: "" if row["memory_gb"] is None else f"{row['memory_gb']:.4g} GB"
    columns["ImageNet weights"] = lambda row: Weights(**row["weights"])
    _show(rows) if as_json else _table(rows, columns)


@app.command()
@_told
def models(as_json: Json = False) -> None:
    """Networks that can be trained."""
    from bgpanet.catalogue import ABSENT, MODELS

    rows: list[Mapping[str, Any]] = [{"id": name, **vars(entry)} for name, entry in MODELS.items()]
    if as_json:
        _show(rows)
        return
    columns: dict[str, Callable[[Mapping[str, Any]], object]] = {
        "name": lambda row: row["id"],
        "what": lambda row: row["title"],
        "pixels": lambda row: row["image_size"],
        "parameters, M": lambda row: f"{row['parameters']:.3f}",
        "GMAC": lambda row: f"{row['gmac']:.3f}",
        "pretrained": lambda row: "yes" if row["imagenet"] else "no",
    }
    _table(rows, columns)
    for name, why in ABSENT.items():
        console.print(f"{name} is not available: {why}")


# ── Tokens ────────────────────────────────────────────────────────────────────────────────────────────────────────


@token_app.command("create")
@_told
def token_create(
    name: Annotated[str, typer.Argument(help="what it is for")],
    user: Annotated[str, typer.Option(help="whose it is")],
    role: Annotated[str, typer.Option(help="viewer, researcher or admin")] = "researcher",
    as_json: Json = False,
) -> None:
    """Make a token. It is shown this once."""
    with Client() as client:
        made = client.post("tokens", {"name": name, "user": user, "role": role})
    _show(made) if as_json else print(made["token"])


@token_app.command("list")
@_told
def token_list(as_json: Json = False) -> None:
    """All tokens, without their secrets."""
    with Client() as client:
        rows = client.get("tokens")["items"]
    names = ("id", "name", "user", "role", "created_at", "revoked_at")
    _show(rows) if as_json else _table(rows, {n: lambda row, n=n: row[n] or "" for n in names})  # type: ignore[misc]


@token_app.command("revoke")
@_told
def token_revoke(token_id: Annotated[str, typer.Argument(metavar="ID")], as_json: Json = False) -> None:
    """End a token at once."""
    with Client() as client:
        client.revoke_token(token_id)
    _show({"revoked": token_id}) if as_json else print(f"revoked {token_id}")


def main() -> None:
    """The console command."""
    app()


if __name__ == "__main__":
    main()
