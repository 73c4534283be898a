"""An encoded image without anything but its pixels: no EXIF, GPS, comments, XMP, thumbnails, or data after its end.

What is no pixels is cut out of JPEG and PNG, and nothing is encoded anew, so a clean file stays the same to the byte.
An image that lies on its side by its header, and formats other than these two, are written as upright PNG with the
same pixels.
"""

import hashlib
import io
import logging
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

JPEG, PNG = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"
OTHERS = ("TIFF", "BMP", "WEBP")
MOST_PIXELS = 64_000_000  # of an encoded image; a header that claims more is not followed
SUFFIXES = {
    "JPEG": (".jpg", ".jpeg"),
    "PNG": (".png",),
    "TIFF": (".tif", ".tiff"),
    "BMP": (".bmp",),
    "WEBP": (".webp",),
}
_ORIENTATION = 0x0112
_SCAN_ENDS = re.compile(rb"\xff[\xc0-\xcf\xd9-\xfe]")  # a marker; 0xFF00, restarts and damage belong to the scan
_TABLES = {*range(0xC0, 0xD0), 0xDB, 0xDC, 0xDD}  # frames, Huffman and quantisation tables, lines, restart interval
_NO_IMAGE = re.compile(rb"no image, sha256 [0-9a-f]{64}")
_PNG_KEPT = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")

logging.getLogger("PIL").setLevel(logging.INFO)  # below that it writes an image's tags into the log


@dataclass(frozen=True)
class Cleaned:
    """content: what may be stored. format: as Pillow names it, of what came in; None where it is no image that could
    be used. notes: what was done, as clauses for people."""

    content: bytes
    format: str | None
    notes: tuple[str, ...] = ()


def clean(content: bytes) -> Cleaned:
    """An encoded image reduced to what its pixels need. Clean content comes back unchanged. Never raises.

    An image that is cut off stays so, without its metadata: whoever decodes it will see that it is cut off. What is
    no image is replaced by a line that names its digest, so that two different ones remain two.
    """
    if content.startswith(JPEG):
        kept, notes = _jpeg(content)
        cleaned = Cleaned(kept, "JPEG", notes) if b"\xff\xda" in kept else None
    elif content.startswith(PNG):
        kept, notes = _png(content)
        cleaned = Cleaned(kept, "PNG", notes) if b"IDAT" in kept else None
    else:
        written = _as_png(content, OTHERS)
        cleaned = written and Cleaned(written[1], written[0], ("it is stored as PNG with the same pixels",))
    if cleaned is not None:
        return _upright(content, cleaned)
    if not content or _NO_IMAGE.fullmatch(content):
        return Cleaned(content, None)
    return Cleaned(b"no image, sha256 " + hashlib.sha256(content).hexdigest().encode(), None)


def _upright(content: bytes, kept: Cleaned) -> Cleaned:
    """The same, or a PNG of it if a header says that it lies on its side."""
    if kept.format not in ("JPEG", "PNG") or len(kept.content) == len(content) or _orientation(content) == 1:
        return kept  # it was turned already, or nothing was cut out that could say so
    written = _as_png(content, (kept.format,))
    if written is None:
        return kept  # its pixels are broken; that is told when it is decoded
    return Cleaned(written[1], kept.format, (*kept.notes, "it lay on its side by its header; it is stored upright"))


def _jpeg(content: bytes) -> tuple[bytes, tuple[str, ...]]:
    parts: list[bytes] = [JPEG]
    after = 0  # bytes
    jfif = adobe = False
    for marker, start, end in _segments(content):
        segment = content[start:end]
        if marker == 0xE0 and segment[4:9] == b"JFIF\0" and len(segment) >= 18 and not jfif:
            jfif = True  # it decides how colours are coded; a thumbnail may follow in it
            parts.append(b"\xff\xe0\0\x10" + segment[4:16] + b"\0\0")
        elif marker == 0xEE and segment[4:9] == b"Adobe" and len(segment) >= 16 and not adobe:
            adobe = True
            parts.append(b"\xff\xee\0\x0e" + segment[4:16])
        elif marker in _TABLES or marker == 0xDA:
            parts.append(segment)
        elif marker == 0xD9:
            parts.append(segment)
            after = len(content) - end
    kept = b"".join(parts)
    return kept, _notes(len(content) - len(kept) - after, after)


def _notes(inside: int, after: int) -> tuple[str, ...]:
    """What was left out, of so many bytes inside the image and after its end."""
    notes = ["bytes that are no pixels (EXIF, comments, …) are left out"] if inside else []
    return (*notes, "data after its end is left out") if after else tuple(notes)


def _segments(content: bytes) -> Iterator[tuple[int, int, int]]:
    """(marker, start, end) up to and with the end of the image; a scan with its coded data. Ends where it is cut off.

    Bytes between segments belong to none.
    """
    position = len(JPEG)
    while (start := content.find(b"\xff", position)) >= 0:
        position = start + 1
        while content[position : position + 1] == b"\xff":
            position += 1
        marker = content[position] if position < len(content) else 0
        start = position - 1
        if marker == 0xD9:
            yield marker, start, position + 1
            return
        if marker in (0, 1) or 0xD0 <= marker <= 0xD8:
            position += 1
            continue
        end = position + 1 + int.from_bytes(content[position + 1 : position + 3], "big")
        if marker == 0xDA:
            found = _SCAN_ENDS.search(content, min(end, len(content)))
            end = found.start() if found else len(content)
        if end > len(content):
            return
        yield marker, start, end
        position = end


def _png(content: bytes) -> tuple[bytes, tuple[str, ...]]:
    parts: list[bytes] = [PNG]
    position, after = len(PNG), 0
    while position + 8 <= len(content):
        length, name = int.from_bytes(content[position : position + 4], "big"), content[position + 4 : position + 8]
        end = position + 12 + length
        if name in _PNG_KEPT:
            parts.append(content[position:end])  # also where it is cut off
        position = end
        if name == b"IEND":
            after = max(len(content) - end, 0)
            break
    kept = b"".join(parts)
    return kept, _notes(len(content) - len(kept) - after, after)


def _orientation(content: bytes) -> int:
    """By EXIF, or by XMP where that says nothing, as `ImageOps.exif_transpose` sees it; 1 is upright."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content), formats=["JPEG", "PNG"]) as image:
                found = image.getexif().get(_ORIENTATION, 1)
        return found if found in range(2, 9) else 1
    except Exception:
        return 1  # what can't be read is told when its pixels are


def _as_png(content: bytes, formats: tuple[str, ...]) -> tuple[str, bytes] | None:
    """(format, PNG bytes) of the first image in a file, upright; None where its pixels can't be read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content), formats=formats) as image:
                if image.width * image.height > MOST_PIXELS:
                    return None
                format = image.format or formats[0]
                image.load()
                upright = _writable(ImageOps.exif_transpose(image))
        bare = Image.frombytes(upright.mode, upright.size, upright.tobytes())
        if upright.palette is not None:
            bare.putpalette(upright.palette)
        file = io.BytesIO()
        options = {"transparency": upright.info["transparency"]} if "transparency" in upright.info else {}
        bare.save(file, "PNG", compress_level=6, **options)
        return format, clean(file.getvalue()).content
    except MemoryError:
        raise
    except Exception:
        return None  # whatever a hostile file makes of its decoder


def _writable(image: Image.Image) -> Image.Image:
    """In a mode that PNG knows, its values kept."""
    if image.mode.startswith("I"):
        values = np.asarray(image, dtype=np.int64).clip(0, 65535)
        return Image.fromarray(values.astype(np.uint16))
    return image if image.mode in ("1", "L", "LA", "P", "RGB", "RGBA") else image.convert("RGB")
