"""`bgpanet model`: registering, looking at, trying, exporting, importing and removing trained models."""

import base64
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from services.client import Client
from services.commands.common import USAGE, Columns, JobId, Json, console, errors, print_json, print_table, stop, verb
from services.commands.completion import model_aliases, model_names, model_references, project_ids

app = typer.Typer(no_args_is_help=True, help="Keep trained models under names: versions, aliases, files, trying them.")

Reference = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="NAME (its newest version), NAME@3 or NAME@champion", autocompletion=model_references
    ),
]
Name = Annotated[str, typer.Argument(metavar="NAME", help="of a model", autocompletion=model_names)]
Note = Annotated[str | None, typer.Option(help="a sentence that is kept with it")]
InProject = Annotated[
    str | None, typer.Option("--project", help="that it belongs to; default: your own", autocompletion=project_ids)
]

_VERSIONS: Columns = {
    "model": lambda v: f"{v['model']}@{v['version']}" if v["version"] else v["model"],
    "state": lambda v: v["state"],
    "aliases": lambda v: ", ".join(v["aliases"]),
    "network": lambda v: v["card"].get("model", {}).get("name", ""),
    "members": lambda v: v["members"] or "",
    "balanced accuracy": lambda v: _figure(v["metrics"]) if v["source"] == "trained" else "",
    "from": lambda v: f"{v['source']}, {v['provenance'].get('dataset') or v['provenance'].get('file') or ''}",
    "id": lambda v: v["id"],
}


def _figure(metrics: dict[str, Any]) -> str:
    """A version's main figure with its interval, as far as its job told them."""
    value = (metrics.get("figures") or {}).get("balanced_accuracy")
    if not isinstance(value, int | float):
        return ""
    bounds = (metrics.get("intervals") or {}).get("balanced_accuracy")
    told = f" ({bounds[0]:.3f} to {bounds[1]:.3f})" if isinstance(bounds, list) and len(bounds) == 2 else ""
    return f"{value:.3f}{told}"


@app.command("register")
@verb
def model_register(
    name: Name,
    job: JobId,
    alias: Annotated[str | None, typer.Option(help="is to stand for it from now on, e.g. champion")] = None,
    note: Note = None,
    project: InProject = None,
    as_json: Json = False,
) -> None:
    """Keep the model of a finished training or cross-validation: the next version of a name.

    Example: bgpanet model register lesions JOB --alias champion
    """
    with Client() as client:
        made = client.registry.register(name, job, alias=alias, note=note, project=project)
    print_json(made) if as_json else print_table([made], _VERSIONS)


@app.command("list")
@verb
def model_list(
    q: Annotated[str | None, typer.Option("-q", help="only those with this text in their name")] = None,
    as_json: Json = False,
) -> None:
    """Registered models, newest first. `bgpanet models` lists networks that can be trained.

    Example: bgpanet model list -q lesions
    """
    with Client() as client:
        rows = list(client.registry.list(q))
    if as_json:
        print_json(rows)
        return
    print_table(
        rows,
        {
            "name": lambda m: m["name"],
            "versions": lambda m: m["versions"],
            "newest": lambda m: m["newest"] or "",
            "aliases": lambda m: ", ".join(f"{alias}={number}" for alias, number in m["aliases"].items()),
            "project": lambda m: m["project"],
            "id": lambda m: m["id"],
        },
    )


@app.command("show")
@verb
def model_show(model: Reference, as_json: Json = False) -> None:
    """The versions of a model, or one of them with where it came from.

    Example: bgpanet model show lesions@champion
    """
    with Client() as client:
        if "@" not in model:
            rows = client.registry.versions(model)
            print_json(list(rows)) if as_json else print_table(rows, _VERSIONS)
            return
        found = client.registry.version(model)
    if as_json:
        print_json(found)
        return
    print_table([found], _VERSIONS)
    for field in ("note", "error", "digest", "job"):
        if found[field]:
            console.print(f"{field}: {escape(str(found[field]))}")
    for field, value in found["provenance"].items():
        if field not in ("spec", "told"):
            console.print(f"{field.replace('_', ' ')}: {escape(str(value))}")
    console.print(f"classes: {escape(', '.join(found['card'].get('classes', [])))}")
    console.print(escape(found["intended_use"]), style="dim")


@app.command("alias")
@verb
def model_alias(
    name: Name,
    alias: Annotated[str, typer.Argument(help="e.g. champion", autocompletion=model_aliases)],
    version: Annotated[int | None, typer.Argument(help="for which it is to stand")] = None,
    expected: Annotated[
        int | None, typer.Option(min=0, help="only where it stands for this one now; 0: for none")
    ] = None,
    drop: Annotated[bool, typer.Option("--drop", help="forget the alias")] = False,
    as_json: Json = False,
) -> None:
    """Have an alias stand for a version from now on, at once.

    Example: bgpanet model alias lesions champion 2
    """
    if drop == (version is not None):
        stop("name either a version or --drop", USAGE)
    with Client() as client:
        if version is None:
            client.registry.drop(name, alias)
        else:
            client.registry.point(name, alias, version, expected)
        made = client.registry.model(name)
    told = ", ".join(f"{given} stands for {number}" for given, number in made["aliases"].items())
    print_json(made) if as_json else print(told or "no alias")


@app.command("export")
@verb
def model_export(
    model: Reference,
    to: Annotated[Path, typer.Option(help="file or folder")] = Path(),
    onnx: Annotated[bool, typer.Option("--onnx", help="as ONNX, made and compared by a job")] = False,
    bound: Annotated[float, typer.Option(help="of ONNX: most by which a probability may differ")] = 1e-4,
    as_json: Json = False,
) -> None:
    """Save a version as a zip of safetensors, model.json, card and digests; or as ONNX.

    Example: bgpanet model export lesions@champion --to ./ --onnx
    """
    with Client() as client:
        if not onnx:
            path = client.registry.export(model, to)
            print_json({"path": str(path)}) if as_json else print(path)
            return
        job = client.job(client.registry.export_onnx(model, bound)["id"])
        with errors.status("a worker writes it and compares its answers"):
            job.wait(progress=False)
        paths = [job.download(name, to) for name in (("model.onnx", "onnx.json") if to.is_dir() else ("model.onnx",))]
    summary = {**job.summary, "paths": [str(path) for path in paths]}
    if as_json:
        print_json(summary)
        return
    print(paths[0])
    difference, images = summary["largest_difference"], summary["images_compared"]
    console.print(f"largest difference of a probability from the net's own: {difference:.2g}, on {images} images")


@app.command("import")
@verb
def model_import(
    name: Name,
    path: Annotated[Path, typer.Argument(exists=True, help="a zip that `model export` made, or a folder")],
    note: Note = None,
    project: InProject = None,
    wait: Annotated[bool, typer.Option(help="until it was checked")] = True,
    as_json: Json = False,
) -> None:
    """Keep a model from elsewhere: model.safetensors and model.json only, checked by a worker before it is used.

    Example: bgpanet model import lesions ./lesions-1.zip
    """
    with Client() as client, errors.status("sending and checking it"):
        made = client.registry.import_model(name, path, wait=wait, note=note, project=project)
    print_json(made) if as_json else print_table([made], _VERSIONS)


@app.command("predict")
@verb
def model_predict(
    model: Reference,
    images: Annotated[list[Path], typer.Argument(exists=True, dir_okay=False, help="up to 16")],
    overlays: Annotated[Path | None, typer.Option(help="a folder for pictures of what it looked at")] = None,
    explained: Annotated[
        str | None, typer.Option(help="the class that they explain; default: the predicted one")
    ] = None,
    timeout: Annotated[int, typer.Option(min=1, max=60, help="seconds")] = 30,
    as_json: Json = False,
) -> None:
    """Try a model on a few images. For research, no diagnosis.

    Example: bgpanet model predict lesions@champion one.jpg two.jpg --overlays ./seen
    """
    if overlays is not None and not overlays.is_dir():
        stop(f"{overlays} is no folder; make it first", USAGE)
    with Client() as client, errors.status("waiting for a worker"):
        made = client.registry.predict(
            model, images, overlays=overlays is not None, explained=explained, timeout=timeout
        )
    for path, row in zip(images, made["images"], strict=True):
        if overlays is not None and row["overlay"] is not None:
            picture = overlays / f"{path.stem}-overlay.png"
            picture.write_bytes(base64.b64decode(row["overlay"].partition(",")[2]))
            row["overlay"] = str(picture)
    if as_json:
        print_json(made)
        return
    print_table(
        made["images"],
        {
            "image": lambda r: r["name"],
            "predicted": lambda r: r["predicted"] or "",
            "probabilities": lambda r: "  ".join(f"{c} {p:.3f}" for c, p in (r["probabilities"] or {}).items()),
            "": lambda r: r["error"] or r["overlay"] or "",
        },
    )
    if made["synthetic"]:
        console.print("the model was trained on drawn images: its answers mean nothing", style="yellow")
    console.print(escape(made["intended_use"]), style="dim")


@app.command("remove")
@verb
def model_remove(model: Reference, as_json: Json = False) -> None:
    """Delete the files of one version (NAME@3), or of all (NAME). What they were, and came from, can still be shown.

    Example: bgpanet model remove lesions@3
    """
    with Client() as client:
        client.registry.remove(model)
    print_json({"removed": model}) if as_json else print(f"removed {model}")
