import hashlib
import io
import os
import socket
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bgpanet.data.index import ImageRecord, Index
from bgpanet.data.pixels import MANIFEST, MOST_PIXELS, PIXELS, decode, open_pixels
from bgpanet.errors import DataDamaged


def encoded(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def index_of(folder: Path, contents: list[bytes]) -> Index:
    records = []
    for number, content in enumerate(contents):
        path = folder / f"{number}.png"
        path.write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        records.append(ImageRecord(str(number), path, 0, len(content), digest, 0, str(number)))
    return Index("folder", ("a",), tuple(records), "image")


RED = encoded(Image.new("RGB", (8, 6), (255, 0, 0)))


def test_the_whole_frame_is_resized() -> None:
    image = Image.new("RGB", (40, 20))
    image.paste((0, 255, 0), (20, 0, 40, 20))
    pixels = decode(encoded(image), 8)
    assert pixels.shape == (8, 8, 3)
    assert pixels[4, 0].tolist() == [0, 0, 0]
    assert pixels[4, 7].tolist() == [0, 255, 0]


def test_an_image_that_lies_on_its_side_by_its_header_is_turned_upright() -> None:
    image = Image.new("RGB", (16, 8))
    image.paste((255, 255, 255), (0, 0, 8, 8))  # its left half; turned a quarter to the right, its upper one
    header = Image.Exif()
    header[0x0112] = 6
    pixels = decode(encoded(image, "JPEG", exif=header, quality=95), 8)
    assert pixels[0].mean() > 200
    assert pixels[7].mean() < 50


@pytest.mark.parametrize(
    ("image", "colour"),
    [
        (Image.new("L", (4, 4), 100), [100, 100, 100]),
        (Image.fromarray(np.full((4, 4), 100 << 8, np.uint16)), [100, 100, 100]),
        (Image.new("RGBA", (4, 4), (0, 0, 0, 0)), [255, 255, 255]),
        (Image.new("LA", (4, 4), (7, 255)), [7, 7, 7]),
        (Image.new("1", (4, 4), 1), [255, 255, 255]),
        (Image.new("RGB", (4, 4), (9, 8, 7)).quantize(), [9, 8, 7]),
    ],
    ids=["grey", "grey of 16 bits", "transparent", "grey with alpha", "one bit", "palette"],
)
def test_other_kinds_of_pixels_become_rgb(image: Image.Image, colour: list[int]) -> None:
    assert decode(encoded(image), 2).reshape(-1, 3).tolist() == [colour] * 4


def test_a_cmyk_jpeg_becomes_rgb() -> None:
    assert decode(encoded(Image.new("CMYK", (4, 4), (0, 0, 0, 0)), "JPEG"), 2).min() > 250


def claims(width: int, height: int) -> bytes:
    """A PNG whose header claims a size that its data has not."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + RED[33:]


@pytest.mark.parametrize(
    "content",
    [b"", b"text", RED[:40], RED[:-28], encoded(Image.new("RGB", (4, 4)), "GIF"), claims(2**15, 2**15), claims(0, 4)],
    ids=["empty", "text", "header only", "cut off", "GIF", "bomb", "nothing"],
)
def test_what_is_no_usable_image_is_told_and_not_guessed(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        decode(content, 8)


def test_the_limit_of_pixels_is_told() -> None:
    with pytest.raises(ValueError, match=f"more than {MOST_PIXELS:,}"):
        decode(claims(8001, 8000), 8)


def test_unreadable_images_are_errors_beside_the_others(tmp_path: Path) -> None:
    index = index_of(tmp_path, [RED, b"\x89PNG broken", RED])
    found = open_pixels(index, 4, tmp_path / "cache")
    assert found.pixels.shape == (3, 4, 4, 3)
    assert found.pixels[0, 0, 0].tolist() == [255, 0, 0]
    assert found.errors.keys() == {1}
    assert open_pixels(index, 4, tmp_path / "cache").errors == found.errors


@pytest.mark.parametrize("damage", ["changed", "gone"])
def test_an_image_that_is_not_what_was_registered_stops_the_run_and_is_not_remembered(
    tmp_path: Path, damage: str
) -> None:
    """It is no unreadable image: the data set is damaged, and may be whole again tomorrow."""
    index = index_of(tmp_path, [RED, RED])
    (tmp_path / "1.png").write_bytes(b"changed")
    if damage == "gone":
        (tmp_path / "1.png").unlink()
    with pytest.raises(DataDamaged, match=r"image 1: .*(has changed|can't be read)"):
        open_pixels(index, 4, tmp_path / "cache")
    (tmp_path / "1.png").write_bytes(RED)
    assert open_pixels(index, 4, tmp_path / "cache").errors == {}


def test_pixels_belong_to_their_images_whatever_the_order_of_reading(tmp_path: Path) -> None:
    blue = encoded(Image.new("RGB", (8, 6), (0, 0, 255)))
    index = index_of(tmp_path, [RED, blue])
    turned = Index("folder", ("a",), index.records[::-1], "image")
    assert turned.records == index.records
    for made in (index, turned):
        pixels = open_pixels(made, 4, tmp_path / "cache").pixels
        for position, record in enumerate(made.records):
            assert np.array_equal(pixels[position], decode(record.read_bytes(), 4))


def test_an_image_with_broken_exif_is_read_as_it_lies() -> None:
    header = Image.Exif()
    header[0x0112] = 6
    content = bytearray(encoded(Image.new("RGB", (16, 8), (255, 0, 0)), "JPEG", exif=header))
    place = content.index(b"Exif\0\0") + 6
    for position in range(place + 8, place + 26):
        broken = bytearray(content)
        broken[position] = 0xFF
        assert decode(bytes(broken), 8).shape == (8, 8, 3)


def test_what_a_dead_process_left_half_done_is_removed(tmp_path: Path) -> None:
    index = index_of(tmp_path, [RED])
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    host = socket.gethostname()
    for left in (f".x-4.{host}.{dead.pid}", f".x-4.{host}.{os.getppid()}", f".x-4.elsewhere.{dead.pid}"):
        (tmp_path / "cache" / left).mkdir(parents=True)
    open_pixels(index, 4, tmp_path / "cache")
    names = sorted(path.name for path in (tmp_path / "cache").glob(".*"))
    assert names == sorted([f".x-4.{host}.{os.getppid()}", f".x-4.elsewhere.{dead.pid}"])


def test_pixels_are_decoded_once_and_shared(tmp_path: Path) -> None:
    said: list[tuple[int, int]] = []
    index = index_of(tmp_path, [RED] * 3)
    for _ in range(2):
        found = open_pixels(index, 4, tmp_path / "cache", lambda done, total: said.append((done, total)))
    assert said == [(3, 3)]
    assert not found.pixels.flags.writeable
    assert open_pixels(index, 5, tmp_path / "cache").pixels.shape == (3, 5, 5, 3)


@pytest.mark.parametrize("damage", ["shorter", "no manifest", "other digest", "nonsense"])
def test_a_damaged_cache_is_made_anew(tmp_path: Path, damage: str) -> None:
    index = index_of(tmp_path, [RED] * 3)
    open_pixels(index, 4, tmp_path / "cache")
    (folder,) = (tmp_path / "cache").iterdir()
    if damage == "shorter":
        (folder / PIXELS).write_bytes(b"\0" * 10)
    elif damage == "no manifest":
        (folder / MANIFEST).unlink()
    elif damage == "other digest":
        (folder / MANIFEST).write_text((folder / MANIFEST).read_text().replace(index.digest, "0" * 64))
    else:
        (folder / MANIFEST).write_text("[]")
    assert open_pixels(index, 4, tmp_path / "cache").pixels.sum() == 3 * 16 * 255
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [folder.name]


def test_an_interrupted_decoding_leaves_nothing(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    index = index_of(tmp_path, [RED] * 3)
    with pytest.raises(KeyboardInterrupt):
        open_pixels(index, 4, tmp_path / "cache", stop)
    assert list((tmp_path / "cache").iterdir()) == []
