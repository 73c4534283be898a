import errno
import fcntl
import hashlib
import io
import os
import pickle
import signal
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from bgpanet.data.cleaning import MOST_PIXELS
from bgpanet.data.index import ImageRecord, Index
from bgpanet.data.pixels import BUILD, MANIFEST, PIXELS, USE, decode, open_pixels, stream_pixels
from bgpanet.errors import DataDamaged, Interrupted


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
    (folder,) = entries(tmp_path / "cache")
    if damage == "shorter":
        (folder / PIXELS).write_bytes(b"\0" * 10)
    elif damage == "no manifest":
        (folder / MANIFEST).unlink()
    elif damage == "other digest":
        (folder / MANIFEST).write_text((folder / MANIFEST).read_text().replace(index.digest, "0" * 64))
    else:
        (folder / MANIFEST).write_text("[]")
    assert open_pixels(index, 4, tmp_path / "cache").pixels.sum() == 3 * 16 * 255
    assert sorted(path.name for path in folder.iterdir()) == [BUILD, MANIFEST, PIXELS, USE]


def test_an_interrupted_decoding_leaves_no_pixels(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    index = index_of(tmp_path, [RED] * 3)
    with pytest.raises(KeyboardInterrupt):
        open_pixels(index, 4, tmp_path / "cache", stop)
    (folder,) = entries(tmp_path / "cache")
    assert sorted(path.name for path in folder.iterdir()) == [BUILD, USE]


# ── JPEG at a smaller scale ──────────────────────────────────────────────────────────────────────────────────────


def photo(width: int, height: int) -> Image.Image:
    """Smooth colours, a little grain, nothing symmetric."""
    y, x = np.mgrid[0:height, 0:width] / max(width, height)
    grain = np.random.default_rng(0).normal(0, 4, (height, width, 3))
    colours = np.stack([180 * x + 40, 200 * y + 20, 120 + 80 * np.sin(7 * x + 3 * y)], axis=-1)
    return Image.fromarray((colours + grain).clip(0, 255).astype(np.uint8))


def plainly(content: bytes, size: int) -> np.ndarray:
    """By Pillow, at full scale."""
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    return np.asarray(upright.convert("RGB").resize((size, size), Image.Resampling.BILINEAR))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_jpeg_decoded_at_a_smaller_scale_looks_as_at_full_scale_however_it_lies(orientation: int) -> None:
    header = Image.Exif()
    header[0x0112] = orientation
    content = encoded(photo(200, 120), "JPEG", exif=header, quality=95)
    difference = np.abs(decode(content, 32).astype(int) - plainly(content, 32))
    assert difference.mean() < 1.5
    assert difference.max() < 16


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_rows": 1}])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_that_is_cut_off_anywhere_is_an_error(mode: str, options: dict[str, Any]) -> None:
    content = encoded(photo(48, 40).convert(mode), "JPEG", **options)
    assert np.abs(decode(content, 8).astype(int) - plainly(content, 8)).mean() < 4
    for length in {*range(0, len(content), 37), *range(len(content) - 40, len(content))}:
        with pytest.raises(ValueError, match=r"\w"):
            decode(content[:length], 8)


@pytest.mark.parametrize("damage", [b"\xff\xd9", b"\xff\x00\xff\x00\xff\x00", b"\xff\xd3"])
def test_of_a_jpeg_that_is_damaged_inside_the_answer_is_pillows(damage: bytes) -> None:
    content = bytearray(encoded(photo(64, 64), "JPEG"))
    middle = (content.index(b"\xff\xda") + len(content)) // 2
    content[middle : middle + len(damage)] = damage
    try:
        wanted = plainly(bytes(content), 8)
    except OSError:
        with pytest.raises(ValueError, match=r"\w"):
            decode(bytes(content), 8)
    else:
        assert np.abs(decode(bytes(content), 8).astype(int) - wanted).mean() < 4


def test_what_follows_the_end_of_a_jpeg_does_not_matter() -> None:
    content = encoded(photo(64, 64), "JPEG")
    assert np.array_equal(decode(content + b"and more", 8), decode(content, 8))


# ── Part by part ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_parts_come_in_order_with_their_errors_and_leave_the_cache_full(tmp_path: Path) -> None:
    blue = encoded(Image.new("RGB", (8, 6), (0, 0, 255)))
    index = index_of(tmp_path, [RED, blue, b"broken", RED, blue])
    for said in ("decoded", "out of the cache"):
        parts = list(stream_pixels(index, 4, tmp_path / "cache", count=2))
        assert [part.start for part in parts] == [0, 2, 4], said
        assert [part.errors.keys() for part in parts] == [set(), {2}, set()], said
        together = np.concatenate([part.pixels for part in parts])
        assert np.array_equal(together, open_pixels(index, 4, tmp_path / "cache").pixels), said


def test_the_first_part_comes_before_the_last_image_is_read(tmp_path: Path) -> None:
    index = index_of(tmp_path, [RED] * 20)
    parts = stream_pixels(index, 4, tmp_path / "cache", count=2)
    assert next(parts).pixels.shape == (2, 4, 4, 3)
    (tmp_path / "19.png").write_bytes(b"changed")
    with pytest.raises(DataDamaged):
        list(parts)
    assert [path for folder in entries(tmp_path / "cache") for path in folder.iterdir() if "pixels" in path.name] == []


def test_parts_of_what_exceeds_the_limit_alone_are_not_kept(tmp_path: Path) -> None:
    index = index_of(tmp_path, [RED] * 3)
    (part,) = stream_pixels(index, 4, tmp_path / "cache", count=8, limit=100)
    assert part.pixels.sum() == 3 * 16 * 255
    assert not (tmp_path / "cache").exists()


# ── Eviction ─────────────────────────────────────────────────────────────────────────────────────────────────────


def entries(cache: Path) -> list[Path]:
    return sorted(path for path in cache.iterdir() if path.is_dir())


def sizes(cache: Path) -> list[int]:
    """The image sizes that a cache of one data set holds."""
    return sorted(int(path.name.split("-")[1]) for path in entries(cache))


def test_what_was_not_used_for_longest_goes_when_the_limit_is_reached(tmp_path: Path) -> None:
    index, cache = index_of(tmp_path, [RED] * 2), tmp_path / "cache"
    for second, size in enumerate((4, 5, 6)):
        open_pixels(index, size, cache)
        (entry,) = cache.glob(f"*-{size}-*")
        os.utime(entry / USE, (second, second))
    open_pixels(index, 4, cache)  # is used now
    space = sum(path.stat().st_size for path in cache.rglob("*") if path.is_file())
    open_pixels(index, 7, cache, limit=space + 2 * 7 * 7 * 3 - 1)
    assert sizes(cache) == [4, 6, 7]


def test_a_limit_smaller_than_one_data_set_leaves_that_one(tmp_path: Path) -> None:
    index, cache = index_of(tmp_path, [RED] * 2), tmp_path / "cache"
    open_pixels(index, 4, cache, limit=1)
    found = open_pixels(index, 5, cache, limit=1)
    assert sizes(cache) == [5]
    assert found.pixels.sum() == 2 * 25 * 255


def test_nothing_that_is_in_use_is_evicted(tmp_path: Path) -> None:
    index, cache = index_of(tmp_path, [RED] * 2), tmp_path / "cache"
    view = open_pixels(index, 4, cache).pixels[:1]
    with running("found = open_pixels(index, 5, cache); print('open', flush=True); input()", tmp_path, index) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        open_pixels(index, 6, cache, limit=1)
        assert sizes(cache) == [4, 5, 6]
        other.kill()
        other.wait()
        open_pixels(index, 7, cache, limit=1)
        assert sizes(cache) == [4, 7]
    del view
    open_pixels(index, 8, cache, limit=1)
    assert sizes(cache) == [8]


def test_what_is_not_whole_or_of_an_earlier_version_goes_too_and_what_is_no_cache_stays(tmp_path: Path) -> None:
    index, cache = index_of(tmp_path, [RED] * 2), tmp_path / "cache"
    digests = [letter * 64 for letter in "abcd"]
    earlier, broken, hidden, old = (
        f"{digests[0]}-4", f"{digests[1]}-4-v2", f".{digests[2]}-4.host.17", f".{digests[3]}-4.host.17"
    )  # fmt: skip
    for name in (earlier, broken, hidden, old, "lesions"):
        (cache / name).mkdir(parents=True)
        (cache / name / PIXELS).write_bytes(b"0" * 500)
    (cache / earlier / MANIFEST).write_text("{}")
    os.utime(cache / old, (0, 0))
    open_pixels(index, 4, cache)
    names = {path.name for path in entries(cache)}
    assert names == {earlier, hidden, "lesions", f"{index.digest}-4-v2"}, "a hidden one may be somebody's, for a day"
    open_pixels(index, 5, cache, limit=1)
    assert {path.name for path in entries(cache)} == {hidden, "lesions", f"{index.digest}-5-v2"}


# ── Several processes ────────────────────────────────────────────────────────────────────────────────────────────

SLOWLY = """
import os, pickle, sys, time
from pathlib import Path
from bgpanet.data import pixels
from bgpanet.data.pixels import open_pixels

at_once = pixels.decode
def decode(content, size):
    gate = folder / f"hold-{os.path.getsize(sys.argv[2])}"
    while gate.exists():
        time.sleep(0.01)
    with open(sys.argv[2], "ab") as file:
        file.write(b"1")
    return at_once(content, size)
pixels.decode = decode
pixels.SAID_EVERY = 2
folder = Path(sys.argv[1])
index, cache = pickle.loads((folder / "index").read_bytes()), folder / "cache"
"""
HELD = (10, 20)  # so many images decoded, a process that decodes waits until a test has removed `hold-10`, `hold-20`


def running(code: str, folder: Path, index: Index) -> "subprocess.Popen[str]":
    """A process that counts in the file `decoded` what it decodes, and stops for files `hold-N`."""
    (folder / "decoded").touch()
    (folder / "index").write_bytes(pickle.dumps(index))
    command = [sys.executable, "-c", SLOWLY + code, str(folder), str(folder / "decoded")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


TELL = "print(open_pixels(index, 4, cache, lambda *done: print(done, flush=True), workers=1).pixels.sum(), flush=True)"


def test_two_processes_that_want_the_same_decode_it_once_and_both_say_how_far_it_is(tmp_path: Path) -> None:
    index = index_of(tmp_path, [RED] * 30)
    for number in HELD:
        (tmp_path / f"hold-{number}").touch()
    with running(TELL, tmp_path, index) as one, running(TELL, tmp_path, index) as other:
        said: list[list[str]] = [[], []]
        for number in HELD:  # one decodes, the other waits, and both say so
            for process, lines in zip((one, other), said, strict=True):
                assert process.stdout is not None
                lines.append(process.stdout.readline().strip())
            (tmp_path / f"hold-{number}").unlink()
        for process, lines in zip((one, other), said, strict=True):
            assert process.stdout is not None
            lines += process.stdout.read().splitlines()
    assert (tmp_path / "decoded").stat().st_size == 30
    for lines in said:
        assert lines[-1] == str(30 * 16 * 255)
        assert len(lines) > 3
        assert lines[-2] == "(30, 30)"


def test_when_the_one_that_decodes_is_killed_the_other_takes_over(tmp_path: Path) -> None:
    index, cache = index_of(tmp_path, [RED] * 30), tmp_path / "cache"
    said: list[tuple[int, int]] = []
    (tmp_path / f"hold-{HELD[0]}").touch()
    with running(TELL, tmp_path, index) as first:
        assert first.stdout is not None
        first.stdout.readline()

        def look(done: int, total: int) -> None:
            if 4 < done < 30 and first.poll() is None:
                first.kill()
            said.append((done, total))

        found = open_pixels(index, 4, cache, look)
    assert first.returncode == -signal.SIGKILL
    assert said[0][0] < 30
    assert said[-1] == (30, 30)
    assert found.pixels.sum() == 30 * 16 * 255
    (folder,) = entries(cache)
    assert sorted(path.name for path in folder.iterdir()) == [BUILD, MANIFEST, PIXELS, USE]
    assert (tmp_path / "decoded").stat().st_size < 30


def test_who_waits_can_be_interrupted(tmp_path: Path) -> None:
    index = index_of(tmp_path, [RED] * 30)

    def stop(done: int, total: int) -> None:
        raise Interrupted

    (tmp_path / f"hold-{HELD[0]}").touch()
    with running(TELL, tmp_path, index) as first:
        assert first.stdout is not None
        first.stdout.readline()
        with pytest.raises(Interrupted):
            open_pixels(index, 4, tmp_path / "cache", stop)
        (tmp_path / f"hold-{HELD[0]}").unlink()
        assert first.communicate(timeout=240)[0].endswith(f"{30 * 16 * 255}\n")


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(OSError, match=r"can't be locked .*take a folder on a local disk"):
        open_pixels(index_of(tmp_path, [RED]), 4, tmp_path / "cache")
