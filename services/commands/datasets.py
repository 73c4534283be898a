"""`bgpanet dataset`: registering, looking at and removing data sets."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from bgpanet.validation import unknown
from services.client import Client
from services.commands.common import USAGE, Columns, Json, console, errors, hint, print_json, print_table, stop, verb
from services.commands.completion import dataset_names, formats

app = typer.Typer(no_args_is_help=True, help="Register and look at data sets.")

_DATASET_COLUMNS: Columns = {
    "name": lambda d: f"{d['name']}@{d['version']}" if d["version"] else d["name"],
    "state": lambda d: d["state"],
    "format": lambda d: d["format"],
    "images": lambda d: d["images"] if d["digest"] else "",
    "groups": lambda d: f"{d['groups']} {d['group_unit']}s" if d["digest"] else "",
    "digest": lambda d: (d["digest"] or "")[:12],
    "id": lambda d: d["id"],
    "": lambda d: "synthetic" if d["synthetic"] else "",
}
DatasetName = Annotated[
    str, typer.Argument(help="name (its newest version), name@version or id", autocompletion=dataset_names)
]
_LEVELS = {"refused": "red", "excluded": "yellow", "warned": "yellow"}


def _findings(findings: Sequence[Mapping[str, Any]], to: Console) -> None:
    for finding in findings:
        where = f"{finding['where']}: " if finding["where"] else ""
        to.print(f"[{_LEVELS[finding['level']]}]{finding['level']}[/] {escape(where)}{escape(finding['what'])}")


@app.command("add")
@verb
def dataset_add(
    name: str,
    format: Annotated[
        str, typer.Option(help="how its files lie: one of `bgpanet dataset formats`", autocompletion=formats)
    ],
    path: Annotated[
        str, typer.Option(help="a folder that workers see, s3://bucket/prefix, or a zip or tar, which is uploaded")
    ],
    project: Annotated[
        str | None, typer.Option(help="that it belongs to; default: your own; shared (admins): everyone's")
    ] = None,
    licence: Annotated[str | None, typer.Option(help="where the files do not tell it")] = None,
    citation: Annotated[str | None, typer.Option(help="where the files do not tell it")] = None,
    lock: Annotated[
        float | None, typer.Option(min=0.05, max=0.5, help="share of it that no training ever sees, for a last test")
    ] = None,
    wait: Annotated[bool, typer.Option(help="until it is ready, with progress")] = True,
    as_json: Json = False,
) -> None:
    """Check and register a data set.

    Other content under the same name is its next version; the same content again is the version that is there. An
    upload that was cut off goes on where it stopped when the same command is given again.

    Example: bgpanet dataset add ham --format ham10000 --path ./HAM10000.zip
    """
    from services.progress import display

    with Client() as client, display(errors) as bars:
        made = client.add_dataset(
            name,
            format,
            path,
            project=project,
            licence=licence,
            citation=citation,
            lock=lock,
            wait=wait,
            on_update=bars.update,
            on_sent=lambda sent, size: bars.sent(f"upload {Path(path).name}", sent, size),
        )
    if as_json:
        print_json(made)
        return
    print_table([made], _DATASET_COLUMNS)
    _findings(made["findings"], errors)
    hint(f"`bgpanet submit train --dataset {name} --model bgpanet_t --follow` trains on it")


@app.command("list")
@verb
def dataset_list(as_json: Json = False) -> None:
    """All data sets in every state, newest first.

    Example: bgpanet dataset list --json
    """
    with Client() as client:
        rows = list(client.datasets())
    print_json(rows) if as_json else print_table(rows, _DATASET_COLUMNS)
    if not rows:
        hint("there is none yet; `bgpanet dataset add --help` tells how to register one")


@app.command("show")
@verb
def dataset_show(name: DatasetName, as_json: Json = False) -> None:
    """One data set with its classes and findings.

    Example: bgpanet dataset show ham@2
    """
    with Client() as client:
        found = client.dataset(name)
    if as_json:
        print_json(found)
        return
    print_table([found], _DATASET_COLUMNS)
    print_table(
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


@app.command("formats")
@verb
def dataset_formats(
    name: Annotated[str | None, typer.Argument(help="tell all about this one", autocompletion=formats)] = None,
    as_json: Json = False,
) -> None:
    """The formats that can be registered.

    Example: bgpanet dataset formats csv
    """
    from bgpanet.data.readers import described

    texts = described()
    if name is not None and name not in texts:
        stop(unknown("format", name, [*texts]), USAGE)
    if as_json:
        print_json(texts if name is None else {name: texts[name]})
    elif name is not None:
        print(texts[name])
    else:
        rows = [{"format": known, "what": text.partition("\n")[0]} for known, text in texts.items()]
        print_table(rows, {"format": lambda r: r["format"], "what": lambda r: r["what"]})


@app.command("remove")
@verb
def dataset_remove(name: DatasetName, as_json: Json = False) -> None:
    """Delete a data set's files.

    What jobs on it were given can still be told; where none used it, all goes.

    Example: bgpanet dataset remove ham@1
    """
    with Client() as client:
        client.remove_dataset(name)
    print_json({"removed": name}) if as_json else print(f"removed {name}")
