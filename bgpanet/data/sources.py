"""Where images come from and under which licence, as far as a data set's layout tells."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from bgpanet.data.index import Index


@dataclass(frozen=True)
class Source:
    """A published collection; what it says of a data set holds if the images are those of the collection."""

    name: str
    licence: str
    citation: str


SOURCES = {
    "ham10000": Source(
        "HAM10000", "CC BY-NC 4.0", "Tschandl et al., Scientific Data 5:180161 (2018), doi 10.1038/sdata.2018.161"
    ),
    "isic2020": Source(
        "ISIC 2020", "CC BY-NC 4.0", "Rotemberg et al., Scientific Data 8:34 (2021), doi 10.34970/2020-ds01"
    ),
}
DRAWN = Source("drawn lesions", "none needed: the images were drawn by this program", "none")


def describe(index: Index) -> dict[str, Any]:
    """For a run's record: format, digest, counts by class, group unit, and `source`, None where nothing is known."""
    source = DRAWN if index.synthetic else SOURCES.get(index.format)
    counts = np.bincount(index.labels[index.labels >= 0], minlength=len(index.classes)).tolist()
    return {
        "format": index.format,
        "digest": index.digest,
        "images": len(index.records),
        "groups": len(set(index.groups.tolist())),
        "group_unit": index.group_unit,
        "class_counts": dict(zip(index.classes, counts, strict=True)),
        "source": None if source is None else asdict(source),
    }
