"""Nothing that a camera or a person wrote beside the pixels survives, and the pixels do."""

import io
import random
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps, PngImagePlugin

from bgpanet.data.cleaning import clean
from bgpanet.data.pixels import decode

SECRET = b"Ada Lovelace 1815-12-10 48.2082N"


def encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def picture(mode: str = "RGB", size: tuple[int, int] = (48, 32)) -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).convert(mode)


def exif(orientation: int = 1) -> Image.Exif:
    header = Image.Exif()
    header[0x0112] = orientation
    header[0x010E] = SECRET.decode()
    header.get_ifd(0x8825)[1] = SECRET.decode()
    return header


def segment(marker: int, content: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(content) + 2) + content


def planted_jpeg(plain: bytes) -> bytes:
    """EXIF, XMP, a comment, a profile, DICOM-like text, a thumbnail in JFIF, and data after the end."""
    jfif = b"JFIF\0\1\1\0\0\1\0\1\1\1" + b"abc"
    head = segment(0xE0, jfif) + b"".join(
        segment(marker, name + SECRET)
        for marker, name in [
            (0xE1, b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta>"),
            (0xE2, b"ICC_PROFILE\0\1\1"),
            (0xED, b"Photoshop 3.0\0"),
            (0xE7, b"DICM (0010,0010) PN "),
            (0xFE, b""),
        ]
    )
    return plain[:2] + head + plain[20:] + SECRET


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True], ids=["baseline", "progressive"])
def test_a_jpeg_keeps_its_pixels_and_nothing_else(mode: str, progressive: bool) -> None:
    plain = encoded(picture(mode), "JPEG", quality=90, progressive=progressive)
    planted = planted_jpeg(plain) if mode != "CMYK" else plain[:2] + segment(0xFE, SECRET) + plain[2:] + SECRET
    assert SECRET in planted
    cleaned = clean(planted)
    assert cleaned.content == plain
    assert len(cleaned.notes) == 2
    assert np.array_equal(decode(cleaned.content, 32), decode(planted, 32))


def test_restart_markers_and_optimised_tables_are_pixels() -> None:
    plain = encoded(picture(), "JPEG", restart_marker_rows=1, optimize=True)
    assert b"\xff\xd0" in plain
    assert clean(plain).content == plain


def test_a_png_keeps_its_pixels_and_nothing_else() -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", SECRET.decode())
    text.add_itxt("XML:com.adobe.xmp", SECRET.decode())
    planted = encoded(picture("RGBA"), "PNG", pnginfo=text, exif=exif(), icc_profile=SECRET, dpi=(72, 72)) + SECRET
    assert planted.count(SECRET) >= 4
    cleaned = clean(planted)
    assert cleaned.content == encoded(picture("RGBA"), "PNG")
    assert np.array_equal(decode(cleaned.content, 32), decode(planted, 32))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF"])
def test_an_image_that_lies_on_its_side_comes_out_upright_without_the_header_that_said_so(
    format: str, orientation: int
) -> None:
    planted = encoded(picture(), format, exif=exif(orientation))
    cleaned = clean(planted).content
    with Image.open(io.BytesIO(planted)) as before, Image.open(io.BytesIO(cleaned)) as after:
        assert not after.getexif()
        assert np.array_equal(np.asarray(after), np.asarray(ImageOps.exif_transpose(before)))
    assert SECRET not in cleaned
    assert b"Exif" not in cleaned


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_a_tiff_becomes_a_png_with_the_same_values(mode: str) -> None:
    grey = Image.fromarray(np.arange(0, 64000, 100).astype(np.uint16).reshape(20, 32))
    image = grey if mode == "I;16" else picture(mode)
    cleaned = clean(encoded(image, "TIFF", description=SECRET.decode()))
    assert (cleaned.format, SECRET in cleaned.content) == ("TIFF", False)
    with Image.open(io.BytesIO(cleaned.content)) as after:
        expected = image.convert("RGB") if mode == "CMYK" else image
        assert np.array_equal(np.asarray(after), np.asarray(expected))


@pytest.mark.parametrize("format", ["BMP", "WEBP"])
def test_other_formats_become_png(format: str) -> None:
    cleaned = clean(encoded(picture(), format, lossless=True))
    assert np.array_equal(decode(cleaned.content, 32), decode(encoded(picture(), "PNG"), 32))


def test_clean_content_stays_the_same_to_the_byte() -> None:
    for content in (planted_jpeg(encoded(picture(), "JPEG")), encoded(picture(), "TIFF"), b"text", b""):
        once = clean(content).content
        assert clean(once).content == once


def test_what_is_no_image_leaves_nothing_of_itself_but_two_of_them_stay_two() -> None:
    one, other = clean(SECRET), clean(SECRET + b"x")
    assert one.format is None
    assert one.content != other.content
    assert SECRET not in one.content + other.content


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_an_image_cut_off_anywhere_loses_its_metadata_and_stays_unreadable(format: str) -> None:
    whole = encoded(picture(), format, exif=exif(6))
    begin = whole.index(SECRET) + len(SECRET)
    for end in range(begin, len(whole) - 20, 41):  # 20: a PNG's last words, which no pixel needs
        cleaned = clean(whole[:end]).content
        assert SECRET not in cleaned
        with pytest.raises(ValueError, match=r"\w"):
            decode(cleaned, 8)


def test_nothing_that_is_thrown_at_it_makes_it_fail_or_leaves_the_planted_text() -> None:
    rng = random.Random(0)
    for plain in (planted_jpeg(encoded(picture(), "JPEG")), encoded(picture(), "PNG"), encoded(picture(), "TIFF")):
        for _ in range(150):
            damaged = bytearray(plain)
            for _ in range(3):
                damaged[rng.randrange(min(len(damaged), 700))] = rng.randrange(256)
            once = clean(bytes(damaged)).content
            assert clean(once).content == once


@pytest.mark.real_data
def test_real_images_are_clean_already(ham10000: Path) -> None:
    paths = sorted((ham10000 / "HAM10000_images_part_1").iterdir())[::100]
    paths += sorted((ham10000.parent / "ham10000_600x450" / "images_original").glob("*.jpg"))[:10]
    for path in paths:
        content = path.read_bytes()
        assert clean(content).content == content
        planted = content[:2] + segment(0xFE, SECRET) + content[2:] + SECRET
        assert clean(planted).content == content
