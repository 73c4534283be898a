"""What a data set says of itself: licence, citation, whether it was drawn, and what its classes are called.

HAM10000 and ISIC's sets are known. The others may say so in `dataset.yaml` beside the data, all of it optional:

    licence: CC BY 4.0
    citation: Doe 2024, doi 10.1000/1
    synthetic: false
    classes: [nevus, melanoma]      npz alone: the names of the labels 0, 1, …
"""

from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bgpanet.data.readers.files import SYNTHETIC_MARKER
from bgpanet.errors import InvalidInput, Problem
from bgpanet.specs import parse_yaml
from bgpanet.validation import problems_of

FILE = "dataset.yaml"
MOST_BYTES = 64 * 1024
ONE_LINE = r"^[^\r\n\x00]*$"


class About(BaseModel):
    """licence, citation: one line each, empty where nobody tells."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    licence: str = Field("", max_length=500, pattern=ONE_LINE)
    citation: str = Field("", max_length=500, pattern=ONE_LINE)
    synthetic: bool = Field(False, strict=True)
    classes: tuple[str, ...] = Field((), max_length=1000)


DRAWN = About(
    licence="none needed: drawn by a program",
    citation="lesions drawn by bgpanet.data.synthetic; they show no patient",
    synthetic=True,
)


def about(path: Path, known: About | None = None, *, names_classes: bool = False) -> About:
    """What is known of the data in a folder: that it was drawn, else `known`, else what its `dataset.yaml` tells.

    Raises:
        InvalidInput: a file that can't be used, or class names where the data names its classes itself.
    """
    if (path / SYNTHETIC_MARKER).exists():
        return DRAWN
    if known is not None:
        return known
    told = _read(path / FILE)
    if told.classes and not names_classes:
        raise InvalidInput.one(f"{FILE}: classes", "is for npz alone: this format names its classes itself")
    return told


def _read(path: Path) -> About:
    if not path.exists():
        return About()
    try:
        if path.stat().st_size > MOST_BYTES:
            raise InvalidInput.one(FILE, f"is larger than {MOST_BYTES // 1024} KiB")
        values = parse_yaml(path.read_text(encoding="utf-8"))
        return About.model_validate({} if values is None else values)
    except ValidationError as error:
        found = problems_of(error, model=About)
        raise InvalidInput(Problem(f"{FILE}: {problem.where}", problem.what) for problem in found) from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError):
        raise InvalidInput.one(FILE, "is not YAML in UTF-8") from None
