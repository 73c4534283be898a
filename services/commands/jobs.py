"""Verbs that look at jobs and steer them."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer
from rich.markup import escape

from bgpanet.text import figures_brief
from services.client import Client, JobHandle
from services.commands.common import Columns, JobId, Json, console, errors, hint, print_json, print_table, verb
from services.commands.completion import dataset_names, kinds
from services.commands.submit import told_of

app = typer.Typer()

_JOB_COLUMNS: Columns = {
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


@app.command("jobs")
@verb
def list_jobs(
    state: Annotated[str | None, typer.Option(help="queued, running, paused, succeeded, failed or cancelled")] = None,
    kind: Annotated[str | None, typer.Option(help="such as train or predict", autocompletion=kinds)] = None,
    dataset: Annotated[str | None, typer.Option(help="a data set's name", autocompletion=dataset_names)] = None,
    q: Annotated[str | None, typer.Option(help="part of the name")] = None,
    limit: Annotated[int, typer.Option(min=1, help="how many")] = 20,
    as_json: Json = False,
) -> None:
    """The latest jobs.

    Example: bgpanet jobs --state running --dataset ham
    """
    wanted = {"state": state, "kind": kind, "dataset": dataset, "q": q}
    rows: list[Mapping[str, Any]] = []
    with Client() as client:
        for job in client.jobs(**{name: value for name, value in wanted.items() if value}):
            rows.append(job.values)
            if len(rows) >= limit:
                break
    print_json(rows) if as_json else print_table(rows, _JOB_COLUMNS)
    if not rows:
        hint("there is no such job; `bgpanet submit --help` tells how to queue one")


@app.command("job")
@verb
def show_job(job_id: JobId, as_json: Json = False) -> None:
    """One job, with its folds, its place in the queue, and its events.

    Example: bgpanet job ID
    """
    with Client() as client:
        job = client.job(job_id)
        children = [child.values for child in job.children()]
        if as_json:
            print_json(job.values)
            return
        print_table([job.values, *children], _JOB_COLUMNS)
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


def _steer(job_id: str, action: Callable[[JobHandle], JobHandle], as_json: bool) -> None:
    """Does it, and prints the state that the job is in after that."""
    with Client() as client:
        job = action(client.job(job_id))
        print_json(job.values) if as_json else print(job.state)


@app.command()
@verb
def cancel(job_id: JobId, as_json: Json = False) -> None:
    """End a job: at once where it waits, at its next step where it runs.

    Example: bgpanet cancel ID
    """
    _steer(job_id, JobHandle.cancel, as_json)


@app.command()
@verb
def pause(job_id: JobId, as_json: Json = False) -> None:
    """Stop a job for now: at once where it waits, after a checkpoint where it runs.

    `bgpanet resume` lets it go on.

    Example: bgpanet pause ID
    """
    _steer(job_id, JobHandle.pause, as_json)


@app.command()
@verb
def resume(job_id: JobId, as_json: Json = False) -> None:
    """Let a paused job go on.

    Example: bgpanet resume ID
    """
    _steer(job_id, JobHandle.resume, as_json)


@app.command()
@verb
def retry(
    job_id: JobId,
    follow: Annotated[bool, typer.Option("--follow", help="wait and show progress")] = False,
    as_json: Json = False,
) -> None:
    """Try a job that failed or was cancelled again, as a new job, whose id is printed.

    It goes on from the last checkpoint; a cross-validation or study keeps what has succeeded.

    Example: bgpanet retry ID --follow
    """
    with Client() as client:
        job = client.job(job_id).retry()
        told_of(job, follow, as_json)


@app.command()
@verb
def priority(
    job_id: JobId,
    value: Annotated[int, typer.Argument(min=-100, max=100, help="0 unless given; higher comes first")],
    as_json: Json = False,
) -> None:
    """Give a job that waits another place in the queue.

    Example: bgpanet priority ID 5
    """
    with Client() as client:
        job = client.job(job_id).set_priority(value)
        print_json(job.values) if as_json else print(job.values["priority"])
