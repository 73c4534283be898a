"""Pixels as PNG files without compression: the same pixels give the same bytes on every machine, whatever library."""

import struct
import zlib

import numpy as np
import numpy.typing as npt

GREY, RGB = 0, 2
BLOCK = 65_535  # bytes of a stored block of deflate (RFC 1951, section 3.2.4)


def encode_png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """A PNG (W3C PNG, second edition) of (H, W) grey or (H, W, 3) RGB pixels."""
    height, width = pixels.shape[:2]
    lines = np.zeros((height, 1 + pixels[0].size), np.uint8)  # each line begins with its filter: 0, none
    lines[:, 1:] = pixels.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, RGB if pixels.ndim == 3 else GREY, 0, 0, 0)
    return b"".join(
        (b"\x89PNG\r\n\x1a\n", _chunk(b"IHDR", header), _chunk(b"IDAT", _stored(lines.tobytes())), _chunk(b"IEND", b""))
    )


def _chunk(kind: bytes, content: bytes) -> bytes:
    return b"".join(
        (struct.pack(">I", len(content)), kind, content, struct.pack(">I", zlib.crc32(content, zlib.crc32(kind))))
    )


def _stored(content: bytes) -> bytes:
    """The zlib stream (RFC 1950) of stored blocks."""
    parts = [b"\x78\x01"]
    for start in range(0, len(content), BLOCK):
        block = content[start : start + BLOCK]
        last = start + BLOCK >= len(content)
        parts += [struct.pack("<BHH", last, len(block), len(block) ^ 0xFFFF), block]
    parts.append(struct.pack(">I", zlib.adler32(content)))
    return b"".join(parts)
