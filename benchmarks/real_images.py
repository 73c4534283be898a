"""The real images that benchmarks are measured on."""

import hashlib
import os
from pathlib import Path

from bgpanet.data.index import ImageRecord, Index

WHERE = "BGPANET_TEST_DATA"
MISSING = f"the real images are not at hand; name their folder in {WHERE}"


def real_images() -> Path | None:
    """The folder that holds `ham10000/` and `ham10000_600x450/`; None where there is none."""
    folder = Path(os.environ.get(WHERE) or Path(__file__).parents[2] / "shared/data")
    return folder if (folder / "ham10000_600x450").is_dir() else None


def originals(folder: Path) -> list[Path]:
    """HAM10000 images at their original size and quality."""
    return sorted((folder / "ham10000_600x450/images_original").glob("*.jpg"))


def recompressed(folder: Path) -> list[Path]:
    """HAM10000 images at their original size."""
    return sorted((folder / "ham10000_600x450/images_recompressed").glob("*.jpg"))


def index_of(paths: list[Path], images: int) -> Index:
    """A data set of so many images: the files over and over."""
    contents = [path.read_bytes() for path in paths]
    digests = [hashlib.sha256(content).hexdigest() for content in contents]
    records = (
        ImageRecord(
            f"{n:06d}", paths[n % len(paths)], 0, len(contents[n % len(paths)]), digests[n % len(paths)], 0, str(n)
        )
        for n in range(images)
    )
    return Index("folder", ("a", "b"), tuple(records), "image")
