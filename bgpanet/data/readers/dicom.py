"""Single-frame dermoscopy as DICOM files: `.dcm`, or any file that begins as DICOM does.

    labels.csv                  optional: file (relative to the folder), label; empty where it is unknown
    <class>/*.dcm, or *.dcm     without it: one sub-folder for each class, or unlabelled files in the folder itself

Pixels become 8-bit grey or RGB; values of more bits are scaled by `BitsStored`, without windows. An image's id is its
file's name. Images of one patient are one group, named for the first of its images: nothing of PatientID is kept, not
even a digest that could be tried out. Of all tags only these become attributes:

    age             PatientAge in bands of five years, its lower end; 90 for 90 and over
    sex             PatientSex: female, male, other
    localization    BodyPartExamined if it is one of `BODY_PARTS`, else other

Files that can't be used (several frames, an unknown compression, damaged pixels) are excluded and told, in words that
quote no tag. Decoding needs the package pydicom, and what Pillow knows of JPEG and JPEG 2000.
"""

import io
import logging
import re
import warnings
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from bgpanet.data.cleaning import MOST_PIXELS
from bgpanet.data.index import Index
from bgpanet.data.readers.about import about
from bgpanet.data.readers.draft import Draft, Progress, Row
from bgpanet.data.readers.files import leads_out, locate
from bgpanet.data.readers.folder import files_by_class
from bgpanet.data.readers.png import encode_png
from bgpanet.data.readers.tables import read_table
from bgpanet.errors import InvalidInput

LABELS = "labels.csv"
PREAMBLE = 128  # bytes before the magic
MAGIC = b"DICM"
MOST_BYTES = 512 * 2**20  # of a file
BAND = 5  # years
OLDEST = 90  # years
YEARS = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0}
SEX = {"F": "female", "M": "male", "O": "other"}
BODY_PARTS = {
    "abdomen", "ankle", "arm", "axilla", "back", "breast", "buttock", "calf", "cheek", "chest", "chin", "ear", "elbow",
    "extremity", "eye", "eyelid", "face", "finger", "flank", "foot", "forearm", "forehead", "genitalia", "groin",
    "hand", "head", "heel", "hip", "jaw", "knee", "leg", "lip", "lowerlimb", "neck", "nose", "palm", "pelvis",
    "perineum", "scalp", "shoulder", "skin", "skull", "sole", "thigh", "thumb", "toe", "trunk", "upperarm",
    "upperlimb", "wrist",
}  # fmt: skip
REVEALING = 4  # characters of an id or name from which on it is looked for in what is kept
PHOTOMETRIC = ("MONOCHROME1", "MONOCHROME2", "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "PALETTE COLOR")
TAGS: list[Any] = [
    "BodyPartExamined", "BurnedInAnnotation", "IssuerOfPatientID", "NumberOfFrames", "PatientAge", "PatientID",
    "PatientName", "PatientSex",
]  # fmt: skip


class Unusable(ValueError):
    """A file that is excluded, in words that quote none of its tags."""


@dataclass(frozen=True)
class Header:
    """What is looked at of a file. patient: "" if unknown; it is compared and never kept. revealing: parts of the
    patient's id and name that must not stand in what is kept."""

    patient: str
    revealing: tuple[str, ...]
    burned_in: bool
    attributes: dict[str, str]


def read(path: Path, progress: Progress | None = None) -> Index:
    """The index. Raises InvalidInput with every problem."""
    try:
        import pydicom
    except ImportError:
        raise InvalidInput.one("format", "dicom needs the package pydicom; install bgpanet-service[worker]") from None
    logging.getLogger(pydicom.__name__).setLevel(logging.CRITICAL + 1)  # it quotes tags
    draft = Draft("dicom", path, about(path), (), "image", [])
    by_patient: defaultdict[str, list[str]] = defaultdict(list)
    for where, file, label in _labelled(draft) if (path / LABELS).exists() else _by_class(draft):
        try:
            header = _header(file)
        except Unusable as error:
            draft.excluded.add(str(error), where)
            continue
        draft.rows.append(_row(draft, where, file, label, header))
        by_patient[header.patient].append(file.stem)
    draft.classes = tuple(sorted({row.label for row in draft.rows if row.label is not None}))
    for image_id in by_patient.pop("", []):
        draft.warned.add("its patient is not told; the image is a group of its own", image_id)
    for image_ids in by_patient.values():
        draft.pairs += [(image_ids[0], other) for other in image_ids[1:]]
    if by_patient:
        draft.group_unit = "patient"
    if not draft.rows and not draft.excluded.problems():
        draft.refused.add("has no DICOM files", str(path))
    return draft.index(progress)


def _row(draft: Draft, where: str, file: Path, label: str | None, header: Header) -> Row:
    kept = f"{label or ''}/{file.stem}"
    for part in header.revealing:
        if part.casefold() in kept.casefold():
            masked = re.sub(re.escape(part), "…", where, flags=re.IGNORECASE)
            draft.refused.add("the patient's id or name stands in the name of the file or class; rename it", masked)
    if header.burned_in:
        draft.warned.add("says that text is burned into its pixels, which are kept", where)
    return Row(where, file.stem, file, label, file.stem, attributes=header.attributes, encode=partial(_encode, file))


# ── Files and labels ──────────────────────────────────────────────────────────────────────────────────────────────


def _labelled(draft: Draft) -> Iterator[tuple[str, Path, str | None]]:
    """(place, file, label) of every row of the table of labels."""
    named = set()
    for line in read_table(draft.path / LABELS, ("file", "label")).rows:
        file = locate(draft.path, line["file"], line.where, draft.refused)
        if file is not None:
            named.add(file)
            yield line.where, file, line["label"] or None
    for file in sorted(file for file in draft.path.rglob("*") if _is_dicom(file) and file not in named):
        draft.excluded.add(f"{LABELS} does not name it", file.name)


def _by_class(draft: Draft) -> Iterator[tuple[str, Path, str | None]]:
    """(place, file, class) of every file in a class's folder, or in the folder itself."""
    for label, files in files_by_class(draft.path, _is_dicom, draft.refused, draft.warned).items():
        for file in files:
            where = str(file.relative_to(draft.path))
            if leads_out(file, draft.path):
                draft.refused.add("a link leads out of the folder", where)
            else:
                yield where, file, label


def _is_dicom(file: Path) -> bool:
    if not file.is_file() or file.name == "DICOMDIR":
        return False
    if file.suffix.lower() in (".dcm", ".dicom"):
        return True
    with file.open("rb") as stream:
        return stream.read(PREAMBLE + len(MAGIC)).endswith(MAGIC)


# ── Tags ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _header(file: Path) -> Header:
    """Raises Unusable."""
    import pydicom
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    if file.stat().st_size > MOST_BYTES:
        raise Unusable(f"is larger than {MOST_BYTES // 2**20} MiB")
    with _told_without_tags("is no DICOM file that can be read"):
        if pydicom.filereader.read_file_meta_info(file).TransferSyntaxUID == DeflatedExplicitVRLittleEndian:
            raise Unusable("is deflated as a whole, which is not unpacked here; save it in another transfer syntax")
        tags = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=TAGS)
        if int(tags.get("NumberOfFrames") or 1) != 1:
            raise Unusable("has several frames; only single ones are read")
        patient = " of ".join(filter(None, (_text(tags, "PatientID"), _text(tags, "IssuerOfPatientID"))))
        names = [
            part for part in re.split(r"[\^=\s]+", _text(tags, "PatientName")) if not part.lower().startswith("anon")
        ]
        revealing = [part for part in (_text(tags, "PatientID"), *names) if len(part) >= REVEALING]
        return Header(patient, tuple(revealing), _text(tags, "BurnedInAnnotation") == "YES", _attributes(tags))


def _attributes(tags: Any) -> dict[str, str]:
    found = {}
    if age := re.fullmatch(r"(\d{3})([DWMY])", _text(tags, "PatientAge")):
        years = int(age[1]) * YEARS[age[2]]
        found["age"] = str(min(OLDEST, BAND * int(years // BAND)))
    if sex := _text(tags, "PatientSex"):
        found["sex"] = SEX.get(sex.upper(), "other")
    if part := re.sub(r"[^a-z]", "", _text(tags, "BodyPartExamined").lower()):
        found["localization"] = part if part in BODY_PARTS else "other"
    return found


def _text(tags: Any, name: str) -> str:
    value = tags.get(name)
    return "" if value is None else str(value).strip()


# ── Pixels ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _encode(file: Path) -> bytes:
    """The image as PNG. Raises Unusable, and OSError where the file can't be read."""
    import pydicom

    content = file.read_bytes()
    with _told_without_tags("its pixels can't be decoded"):
        return encode_png(_pixels(pydicom.dcmread(io.BytesIO(content))))


def _pixels(image: Any) -> npt.NDArray[np.uint8]:
    """(H, W) grey or (H, W, 3) RGB."""
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.pixels.processing import apply_color_lut
    from pydicom.pixels.utils import pixel_array

    syntax, kind = image.file_meta.TransferSyntaxUID, _text(image, "PhotometricInterpretation")
    height, width, bits = int(image.Rows), int(image.Columns), int(image.BitsStored)
    if height * width > MOST_PIXELS:
        raise Unusable(f"claims more than {MOST_PIXELS:,} pixels")
    if kind not in PHOTOMETRIC or bits > 16 or int(image.PixelRepresentation) != 0:
        raise Unusable(f"its pixels are none of {', '.join(PHOTOMETRIC)}, unsigned and of at most 16 bits")
    if not syntax.is_transfer_syntax or syntax.is_private or not get_decoder(syntax).is_available:
        raise Unusable("its compression can't be decoded here; save it as JPEG, JPEG 2000, RLE or uncompressed")
    values: npt.NDArray[Any] = pixel_array(image)  # YBR comes out as RGB
    if kind == "PALETTE COLOR":
        values = apply_color_lut(values, image)[..., :3]
        bits = 8 * values.dtype.itemsize
    if values.shape not in ((height, width), (height, width, 3)) or values.dtype.kind != "u":
        raise Unusable("its pixels have not the shape that it tells")
    pixels = _eight_bits(values, bits)
    if kind == "MONOCHROME1":
        np.invert(pixels, out=pixels)
    return pixels


def _eight_bits(values: npt.NDArray[np.unsignedinteger[Any]], bits: int) -> npt.NDArray[np.uint8]:
    if bits == 8:
        return values.astype(np.uint8)
    most = 2**bits - 1
    scaled: npt.NDArray[np.uint32] = (values.astype(np.uint32) & most) * 255 // most
    return scaled.astype(np.uint8)


@contextmanager
def _told_without_tags(what: str) -> Iterator[None]:
    """Turns whatever a hostile file makes of its decoder into Unusable, and quotes no warning or error of it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except (MemoryError, Unusable):
        raise
    except Exception as error:
        raise Unusable(f"{what} ({type(error).__name__})") from None
