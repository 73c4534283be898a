"""Measures, prints, and writes `benchmarks/results/<date>-<host kind>.json`."""

import argparse
import datetime
import importlib
import json
import os
import platform
from pathlib import Path
from typing import Any

import torch

from benchmarks.timing import Figure
from bgpanet.provenance import environment

NAMES = (
    "model_step",
    "augmentation",
    "feeding",
    "decoding",
    "batch_inference",
    "child_start",
    "checkpointing",
    "dispatch",
    "service_cost",
    "scaling",
    "api",
    "pages",
)
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", default=NAMES, help=f"of {', '.join(NAMES)}; default: all")
    found: dict[str, Any] = {}
    for name in parser.parse_args().names:
        for goal, measured in importlib.import_module(f"benchmarks.{name}").measure():
            if isinstance(measured, str):
                print(f"{goal}: not measured: {measured}", flush=True)
                found[goal] = {"not_measured": measured}
                continue
            if isinstance(measured, Figure):
                print(f"{goal}: {measured.what}: {measured.value:.4g}", flush=True)
                found[goal] = measured.as_json()
                continue
            low, high = measured.quartiles
            times = " and ".join(f"{seconds:.3g} s" for seconds in measured.seconds)
            told = f"{measured.ratio:.3f} (quartiles {low:.3f}-{high:.3f}; {times}; {measured.pairs} pairs)"
            print(f"{goal}: {measured.what} / {measured.over}: {told}", flush=True)
            found[goal] = measured.as_json()
    _write(found)


def _write(found: dict[str, Any]) -> None:
    kind = torch.cuda.get_device_name() if torch.cuda.is_available() else f"cpu-{platform.machine()}-{os.cpu_count()}"
    kind = kind.lower().replace(" ", "-")
    host = {name: value for name, value in environment().items() if name != "host"}  # its kind, not its name
    record = {"date": datetime.date.today().isoformat(), "kind": kind, **host, "measured": found}
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{record['date']}-{kind}.json"
    if path.exists():  # of other goals, measured earlier this day
        before: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["measured"]
        record["measured"] = {**before, **found}
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(f"wrote {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")


if __name__ == "__main__":
    main()
