"""How much memory joining the tables of shards takes: `python -m benchmarks.prediction_memory [IMAGES] [FOLDER]`.

Writes the tables of shards of 20,000 images each, as shards leave them (seven classes, five models together), then
joins them into one as the last run of a batch inference does, and prints the largest resident memory of that process
before and after, as Linux tells it. The index of the data set, which any run holds, is made first and told apart.
"""

import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bgpanet.data.index import ImageRecord, Index
from bgpanet.evaluation.predictions import PredictionTable, PredictionWriter
from bgpanet.prediction import Answers, joined

CLASSES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
SHARD, BATCH = 20_000, 64


def main() -> None:
    images = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory(dir=sys.argv[2] if len(sys.argv) > 2 else None) as text:
        folder = Path(text)
        print(f"{peak():,.0f} MB after imports")
        index = index_of(images, folder)
        print(f"{peak():,.0f} MB with the index of {images:,} images")
        shards = list(written(index, folder))
        print(f"{peak():,.0f} MB after writing the tables of {len(shards)} shards")
        begun = time.perf_counter()
        with Answers(folder, CLASSES) as answers:
            for table in joined(shards, BATCH):
                answers.append(table, index, range(images))
        seconds = time.perf_counter() - begun
        size = sum(path.stat().st_size for path in answers.files) / 1e6
        print(f"{peak():,.0f} MB after joining {answers.images:,} rows into {size:,.0f} MB in {seconds:.0f} s")


def peak() -> float:
    """The largest resident memory of this process so far, 10^6 bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def index_of(images: int, folder: Path) -> Index:
    path = folder / "images.tar"
    records = (ImageRecord(f"IMG_{n:08d}", path, n, 1, f"{n:064x}", n % 7, f"LES_{n // 2:08d}") for n in range(images))
    return Index("packed", CLASSES, tuple(records), "lesion")


def written(index: Index, folder: Path) -> Iterator[Path]:
    rng = np.random.default_rng(0)
    for first in range(0, len(index.records), SHARD):
        shard = folder / f"shard-{first // SHARD}"
        shard.mkdir()
        with PredictionWriter(shard / "predictions.csv", shard / "predictions.parquet") as writer:
            for start in range(first, min(first + SHARD, len(index.records)), BATCH):
                positions = np.arange(start, min(start + BATCH, first + SHARD, len(index.records)))
                p = rng.dirichlet(np.ones(7), len(positions))
                writer.append(PredictionTable.of(index, positions, p, disagreement=rng.random(len(positions))))
        (shard / "predictions.csv").unlink()
        yield shard


if __name__ == "__main__":
    main()
