"""How far the product carries, computed from what was measured: `python -m benchmarks.scaling_model [--help]`.

A model, not a measurement: `benchmarks/rates.py` measured what a job and a busy slot cost on one machine, the code's
own constants say how often things happen, and the options say what is assumed. All else follows by arithmetic.
"""

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.rates import RESULTS, Rates
from bgpanet.catalogue import MODELS
from bgpanet.specs import TrainingSpec
from bgpanet.training.fit import MAX_POINTS
from services.worker.lease import WRITE_SECONDS
from services.worker.slots import BEAT_SECONDS

BYTES_PER_PARAMETER = 12  # of a checkpoint: weights and both of AdamW's moments, fp32
EPOCH_IMAGES = 0.64  # of a data set that one training learns from: four of five folds, less those for validation
GPUS = (10, 100, 1000)


@dataclass(frozen=True)
class Assumed:
    """What nobody measured here. images_a_second: of a GPU that trains; store: bytes a second that the S3 server takes;
    connections: that PostgreSQL allows; slots: of a worker process."""

    model: str = "bgpanet"
    images: int = 10_015
    images_a_second: float = 1_800.0
    store: float = 1.25e9
    connections: int = 300
    slots: int = 1
    checkpoint_seconds: float = TrainingSpec.model_fields["checkpoint_seconds"].default


@dataclass(frozen=True)
class Load:
    """Of so many busy GPUs, a second unless it says otherwise. sql: transactions of leases and of telling that a slot
    is there; those of a job's begin and end are not in it."""

    gpus: int
    job_seconds: float
    jobs: float
    images: float
    metric_rows: float
    sql: float
    connections: int
    redis: float
    store_bytes: float

    def shares(self, rates: Rates, assumed: Assumed) -> dict[str, float]:
        """Of what each service can do; above 1 it can't."""
        return {
            "S3: bytes of checkpoints": self.store_bytes / assumed.store,
            "PostgreSQL: connections": self.connections / assumed.connections,
            "PostgreSQL: transactions": self.sql / rates.renewals,
            "PostgreSQL: claims, one at a time": self.jobs / rates.claims,
            "Redis: commands": self.redis / (2 * rates.redis_pairs),
        }


def load(gpus: int, rates: Rates, assumed: Assumed) -> Load:
    """What so many GPUs ask of the shared services while each always trains the same kind of job."""
    epochs: int = TrainingSpec.model_fields["epochs"].default
    batch: int = TrainingSpec.model_fields["batch_size"].default
    steps = epochs * -(-round(assumed.images * EPOCH_IMAGES) // batch)
    job_seconds = epochs * assumed.images * EPOCH_IMAGES / assumed.images_a_second
    jobs = gpus / job_seconds
    said = steps // (steps // MAX_POINTS + 1)
    rows = said * rates.rows_per_said_step + epochs * rates.rows_per_epoch
    checkpoint = MODELS[assumed.model].parameters * 1e6 * BYTES_PER_PARAMETER
    return Load(
        gpus=gpus,
        job_seconds=job_seconds,
        jobs=jobs,
        images=gpus * assumed.images_a_second,
        metric_rows=jobs * rows,
        sql=gpus * (1 / WRITE_SECONDS + 1 / BEAT_SECONDS),
        connections=-(-gpus // assumed.slots) * connections(rates.connections, assumed.slots),
        redis=jobs * rates.redis_per_job + gpus * rates.redis_per_slot_second,
        store_bytes=gpus * checkpoint / assumed.checkpoint_seconds,
    )


def connections(measured: Mapping[int, int], slots: int) -> int:
    """Of a worker of so many slots: those of the next larger one that was measured."""
    return measured[min((size for size in measured if size >= slots), default=max(measured))]


def newest_rates(folder: Path = RESULTS) -> tuple[str, Rates]:
    """What was measured last, and the name of its file."""
    path = max(folder.glob("*-rates-*.json"))
    found = json.loads(path.read_text(encoding="utf-8"))["rates"]
    return path.name, Rates(**{**found, "connections": {int(k): v for k, v in found["connections"].items()}})


def table(rates: Rates, assumed: Assumed) -> str:
    """The table of docs/scaling.md, Markdown."""
    loads = [load(gpus, rates, assumed) for gpus in GPUS]
    lines = ["| GPUs | " + " | ".join(f"{found.gpus:,}" for found in loads) + " |", "|---|" + "---|" * len(loads)]
    rows = {
        "trainings an hour": [f"{found.jobs * 3600:,.0f}" for found in loads],
        "images a second": [f"{found.images:,.0f}" for found in loads],
        "metric rows a second": [f"{found.metric_rows:,.0f}" for found in loads],
        "SQL transactions a second": [f"{found.sql:,.0f}" for found in loads],
        "SQL connections of workers": [f"{found.connections:,}" for found in loads],
        "Redis commands a second": [f"{found.redis:,.1f}" for found in loads],
        "S3 bytes a second, checkpoints": [f"{found.store_bytes / 1e9:,.2f} GB" for found in loads],
    }
    shares = [found.shares(rates, assumed) for found in loads]
    rows |= {f"share of {name}": [f"{share[name]:.1%}" for share in shares] for name in shares[0]}
    lines += [f"| {name} | " + " | ".join(cells) + " |" for name, cells in rows.items()]
    firsts = [max(share, key=lambda name: share[name]) for share in shares]
    lines.append("| most strained | " + " | ".join(firsts) + " |")
    return "\n".join(lines)


def carries(rates: Rates, assumed: Assumed) -> dict[str, float]:
    """How many GPUs each service would bear."""
    one = load(1000, rates, assumed)
    return {name: 1000 / share for name, share in one.shares(rates, assumed).items()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling_model", description=__doc__)
    for name, default in vars(Assumed()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default, help=f"{default}")
    assumed = Assumed(**vars(parser.parse_args()))
    name, rates = newest_rates()
    print(f"{name}; {assumed}\na training: {load(1, rates, assumed).job_seconds:.0f} s\n\n{table(rates, assumed)}\n")
    for service, gpus in sorted(carries(rates, assumed).items(), key=lambda item: item[1]):
        print(f"{service}: up to {gpus:,.0f} GPUs")


if __name__ == "__main__":
    main()
