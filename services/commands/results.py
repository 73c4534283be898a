"""Verbs for what jobs leave: their files, and tests between them."""

from pathlib import Path
from typing import Annotated

import typer

from services.client import Client
from services.commands.common import USAGE, Columns, JobId, Json, errors, print_json, print_table, stop, verb
from services.commands.completion import artifact_names

app = typer.Typer()


@app.command()
@verb
def artifacts(job_id: JobId, as_json: Json = False) -> None:
    """The files of a job's result.

    Example: bgpanet artifacts ID
    """
    with Client() as client:
        rows = client.job(job_id).artifacts()
    if as_json:
        print_json(rows)
        return
    print_table(rows, {name: lambda row, name=name: row[name] for name in ("name", "size", "media_type", "sha256")})  # type: ignore[misc]


@app.command()
@verb
def download(
    job_id: JobId,
    name: Annotated[str, typer.Argument(help="one of `bgpanet artifacts ID`", autocompletion=artifact_names)],
    to: Annotated[Path, typer.Option(help="a file, or a folder that exists")] = Path(),
    as_json: Json = False,
) -> None:
    """Save a file of a job's result, checked against its digest.

    One that was cut off goes on where it stopped when the same command is given again.

    Example: bgpanet download ID predictions.csv --to results
    """
    from services.progress import display

    with Client() as client, display(errors) as shown:
        path = client.download(job_id, name, to, lambda there, size: shown.sent(name, there, size))
    print_json({"name": name, "path": str(path)}) if as_json else print(path)


@app.command()
@verb
def compare(
    job_ids: Annotated[
        list[str], typer.Argument(metavar="ID ID…", help="cross-validations; the first is the reference")
    ],
    as_json: Json = False,
) -> None:
    """Test cross-validations against the first one, on the same folds.

    It tells differences with intervals, and p-values corrected for folds and for the number of tests.

    Example: bgpanet compare ID1 ID2
    """
    from services.comparison import compare_jobs

    if len(job_ids) < 2:
        stop("name two or more jobs", USAGE)
    with Client() as client, errors.status("fetching predictions and testing"):
        rows = compare_jobs(client, job_ids)
    if as_json:
        print_json(rows)
        return
    columns: Columns = {
        "job": lambda row: row["system"],
        "figure": lambda row: row["figure"].replace("_", " "),
        "mean": lambda row: f"{row['mean']:.3f}",
        "reference": lambda row: f"{row['reference_mean']:.3f}",
        "difference (95 %)": lambda row: "{:+.3f} ({:+.3f} to {:+.3f})".format(row["difference"], *row["interval"]),
        "p": lambda row: f"{row['p']:.3f}",
        "p (Holm)": lambda row: f"{row['p_holm']:.3f}",
    }
    print_table(rows, columns)
