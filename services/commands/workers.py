"""Worker slots: which there are, and having a worker leave."""

from collections.abc import Sequence
from operator import itemgetter
from typing import Annotated, Any

import typer

from services.client import Client
from services.commands.common import Json, print_json, print_table, verb
from services.commands.completion import worker_names

POINTS = 48  # of a drawing
HEIGHTS = "▁▂▃▄▅▆▇█"

app = typer.Typer(invoke_without_command=True)


@app.callback()
@verb
def workers(context: typer.Context, as_json: Json = False) -> None:
    """Worker slots and what they do; `workers use` tells how busy they were, `workers drain` has one leave.

    Example: bgpanet workers
    """
    if context.invoked_subcommand is not None:
        return
    with Client() as client:
        _tell(client.workers(), as_json)


@app.command()
@verb
def drain(
    name: Annotated[
        str, typer.Argument(metavar="ID", help="a worker, or one of its slots", autocompletion=worker_names)
    ],
    as_json: Json = False,
) -> None:
    """Have a worker leave: its jobs write a checkpoint and go on elsewhere. An admin's token is needed.

    Example: bgpanet workers drain gpu-1
    """
    with Client() as client:
        _tell(client.drain_worker(name), as_json)


@app.command()
@verb
def use(
    hours: Annotated[int, typer.Option(min=1, max=48, help="that it goes back")] = 24,
    as_json: Json = False,
) -> None:
    """How busy worker slots were: on average, and drawn over the time: the GPU's use, or without one that by jobs.

    Example: bgpanet workers use --hours 3
    """
    with Client() as client:
        rows = client.worker_use(hours, POINTS)
    if as_json:
        print_json(rows)
        return
    columns: dict[str, Any] = {"name": itemgetter("name"), "with a job": lambda row: _mean(row, "busy", 100)}
    columns |= {"GPU": lambda row: _mean(row, "gpu_percent"), "CPU": lambda row: _mean(row, "cpu_percent")}
    columns[f"last {hours} h"] = lambda row: _drawn(row["use"])
    print_table(rows, columns)


def _mean(row: dict[str, Any], of: str, times: float = 1) -> str:
    known = [use[of] for use in row["use"] if use is not None and use[of] is not None]
    return f"{times * sum(known) / len(known):.0f} %" if known else ""


def _drawn(uses: Sequence[dict[str, Any] | None]) -> str:
    """A letter for each time, the higher the busier; a blank where nothing was told."""
    letters = []
    for told in uses:
        share = None if told is None else told["busy"] if told["gpu_percent"] is None else told["gpu_percent"] / 100
        letters.append(" " if share is None else HEIGHTS[round(min(max(share, 0), 1) * (len(HEIGHTS) - 1))])
    return "".join(letters)


def _tell(rows: list[dict[str, Any]], as_json: bool) -> None:
    from services.fleet import Weights

    names = ("name", "device", "state", "job", "why", "seen_at")
    columns: dict[str, Any] = {n: lambda row, n=n: row[n] or "" for n in names}
    columns["labels"] = lambda row: ", ".join(row["labels"])
    columns["memory"] = lambda row: "" if row["memory_gb"] is None else f"{row['memory_gb']:.4g} GB"
    columns["ImageNet weights"] = lambda row: Weights(**row["weights"])
    print_json(rows) if as_json else print_table(rows, columns)
