"""Verbs that follow a job while it runs: `watch` and `logs`."""

import json
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from rich.markup import escape

from services.client import Client, JobHandle
from services.commands.common import JobId, Json, errors, print_json, verb

app = typer.Typer()


@app.command()
@verb
def watch(job_id: JobId, as_json: Json = False) -> None:
    """Follow a job with a progress bar until it ends; the exit status is 1 where it ends without success.

    Into a file or pipe lines are written instead of a bar; with --json the job is printed at its end.

    Example: bgpanet watch ID
    """
    with Client() as client:
        job = client.job(job_id)
        show_progress(job)
        if as_json:
            print_json(job.values)


def show_progress(job: JobHandle) -> None:
    """Waits until the job has ended, with a bar or lines, and tells its figures. Raises JobFailed."""
    from bgpanet.text import figures_line
    from services.progress import display

    with display(errors) as shown:
        shown.update(job)
        job.wait(on_update=shown.update, every=0.5)
    errors.print(escape(figures_line(job.summary)))


@app.command()
@verb
def logs(
    job_id: JobId,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="go on until the job ends")] = False,
    as_json: Json = False,
) -> None:
    """What a job said; with --json one object a line.

    Example: bgpanet logs ID -f
    """
    with Client() as client:
        for line in _followed(client, job_id) if follow else _said(client, job_id):
            text = json.dumps(line) if as_json else f"{line['at']} {line['level']:<7} {line['message']}"
            print(text, flush=True)


def _followed(client: Client, job_id: str) -> Iterator[dict[str, Any]]:
    return (event.data for event in client.job(job_id).follow("log") if event.kind == "log")


def _said(client: Client, job_id: str) -> Iterator[dict[str, Any]]:
    job, after = client.job(job_id), 0
    while lines := job.logs(after):
        yield from lines
        after = lines[-1]["id"]
