"""Verbs that follow a job while it runs: `watch` and `logs`."""

import json
import time
from typing import Annotated

import typer
from rich.markup import escape

from bgpanet.text import figures_line
from services.client import ENDED, Client, JobHandle
from services.commands.common import JobId, Json, errors, print_json, verb

app = typer.Typer()


@app.command()
@verb
def watch(job_id: JobId, as_json: Json = False) -> None:
    """Follow a job with a progress bar until it ends."""
    with Client() as client:
        job = client.job(job_id)
        show_progress(job)
        if as_json:
            print_json(job.values)


def show_progress(job: JobHandle) -> None:
    """Waits until the job has ended, with a bar, and tells its figures. Raises JobFailed."""
    from services.progress import JobBars

    with JobBars(errors) as bars:
        bars.add(job)
        job.wait(on_update=bars.update, every=0.5)
    errors.print(escape(figures_line(job.summary)))


@app.command()
@verb
def logs(job_id: JobId, follow: Annotated[bool, typer.Option("-f", "--follow")] = False, as_json: Json = False) -> None:
    """What a job said; with --json one object a line."""
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
