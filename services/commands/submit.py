"""Verbs that queue a job: `submit`, and `clone` for one like another."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from services.client import Client, JobHandle
from services.commands.common import USAGE, JobId, Json, hint, print_json, stop, verb
from services.commands.completion import dataset_names, job_ids, kinds, networks
from services.commands.follow import show_progress

app = typer.Typer()

KINDS = ("train", "cross_validate", "study", "predict", "evaluate", "explain")  # of `bgpanet.specs.Kind`


@app.command()
@verb
def submit(
    kind: Annotated[str, typer.Argument(help=", ".join(KINDS), autocompletion=kinds)],
    dataset: Annotated[
        str, typer.Option(help="name (its newest version), name@version or id", autocompletion=dataset_names)
    ],
    project: Annotated[str | None, typer.Option(help="that it belongs to; default: your own")] = None,
    model: Annotated[
        str | None,
        typer.Option(help="a network's name; to apply a model, its training's id", autocompletion=networks),
    ] = None,
    file: Annotated[Path | None, typer.Option("-f", "--file", help="the spec, YAML or JSON")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="a field of the spec, e.g. training.epochs=20")
    ] = None,
    name: Annotated[str | None, typer.Option(help="what lists show; default: made of what is asked for")] = None,
    priority: Annotated[int, typer.Option(min=-100, max=100, help="higher comes first")] = 0,
    after: Annotated[
        list[str] | None,
        typer.Option(help="id of a job that has to succeed first; repeatable", autocompletion=job_ids),
    ] = None,
    time_limit: Annotated[
        str | None, typer.Option(help="of each run's work: 90s, 30m, 12h or 2d; it then fails, and a retry goes on")
    ] = None,
    on_failure: Annotated[
        str | None, typer.Option(help="of a fold or cell: finish_rest (the others go on) or fail_fast")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="wait and show progress")] = False,
    as_json: Json = False,
) -> None:
    """Queue a job. Its id is printed; `bgpanet watch ID` follows it.

    All that is wrong with it is told before anything runs.

    Example: bgpanet submit train --dataset ham --model bgpanet_micro --set training.epochs=20 --follow
    """
    spec = _spec(kind, file, model, settings or [])
    with Client() as client:
        job = client.submit(
            kind,
            dataset=dataset,
            spec=spec,
            project=project,
            name=name,
            priority=priority,
            after=after or (),
            time_limit=None if time_limit is None else _seconds(time_limit),
            on_failure=on_failure,
        )
        told_of(job, follow, as_json)


@app.command()
@verb
def clone(
    job_id: JobId,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="a field of the spec that changes, e.g. training.seed=1")
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="another data set", autocompletion=dataset_names)] = None,
    name: Annotated[str | None, typer.Option(help="another name")] = None,
    follow: Annotated[bool, typer.Option("--follow", help="wait and show progress")] = False,
    as_json: Json = False,
) -> None:
    """Submit a job like another one, but for some changes.

    Example: bgpanet clone ID --set training.learning_rate=3e-4
    """
    changes = {field: value for field, value in (("dataset", dataset), ("name", name)) if value is not None}
    with Client() as client:
        job = client.job(job_id)
        job = job.clone(_spec(job.values["kind"], None, None, settings or []), **changes)
        told_of(job, follow, as_json)


def told_of(job: JobHandle, follow: bool, as_json: bool) -> None:
    """Prints a job that was queued, after its end where it is followed. Raises JobFailed."""
    if follow:
        show_progress(job)
    print_json(job.values) if as_json else print(job.id)
    if not follow:
        hint(f"`bgpanet watch {job.id}` follows it")


def _seconds(text: str) -> int:
    """`90s`, `30m`, `12h`, `2d`, or a number of seconds."""
    unit = {"s": 1, "m": 60, "h": 3600, "d": 86400}.get(text[-1:], 0)
    number = text[:-1] if unit else text
    if not (number.isascii() and number.isdigit() and int(number) > 0):
        stop(f"--time-limit {text}: must be a whole number with s, m, h or d", USAGE)
    return int(number) * (unit or 1)


def _spec(kind: str, file: Path | None, model: str | None, assignments: list[str]) -> dict[str, Any]:
    # Here, not above: checking of specs takes longer to import than all other verbs.
    import yaml

    from bgpanet.specs import SPECS, AppliedSpec, TrainSpec, parse_yaml

    spec: dict[str, Any] = {}
    if file is not None:
        try:
            spec = parse_yaml(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            stop(f"{file}: {error}", USAGE)
        if not isinstance(spec, dict):
            stop(f"{file}: must hold a mapping of fields", USAGE)
    if model is not None:
        named = spec.get("model")
        applies = issubclass(SPECS.get(kind, TrainSpec), AppliedSpec)
        spec["model"] = {**named, "name": model} if isinstance(named, dict) and not applies else model
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals:
            stop(f"--set {assignment}: must be field=value", USAGE)
        *parents, last = path.split(".")
        place = spec
        for parent in parents:
            inner = place.setdefault(parent, {})
            if isinstance(inner, str) and parent == "model":
                inner = place[parent] = {"name": inner}
            if not isinstance(inner, dict):
                stop(f"--set {assignment}: {parent} is no group of fields", USAGE)
            place = inner
        try:
            place[last] = parse_yaml(text)
            json.dumps(place[last], allow_nan=False)
        except (yaml.YAMLError, TypeError, ValueError) as error:
            stop(f"--set {assignment}: {error}", USAGE)
    return spec
