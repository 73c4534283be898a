"""Decoded pixels: every image once, in one memory-mapped array of bytes that all runs on a machine share."""

import io
import json
import os
import shutil
import socket
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from bgpanet.data.index import ImageRecord, Index

PIXELS, MANIFEST = "pixels.u8", "manifest.json"
MOST_PIXELS = 64_000_000  # of an encoded image; a header that claims more is not followed
SAID_EVERY = 64


@dataclass(frozen=True)
class PixelCache:
    """pixels: (N, S, S, 3) uint8, RGB, read-only, in the order of the index; errors: why images could not be read."""

    pixels: np.ndarray
    errors: dict[int, str]


def open_pixels(
    index: Index, size: int, cache: Path, progress: Callable[[int, int], None] | None = None, workers: int | None = None
) -> PixelCache:
    """The pixels of a data set at `size` x `size`, decoded now if they are not in `cache` yet.

    The whole frame is resized, its aspect not kept, as in the article. An image that can't be read is an entry in
    `errors` and black pixels. Two processes that decode at once do not disturb each other, and what one that died
    left behind is removed. `progress` is called with images done and in all.

    Raises:
        DataDamaged: an image is not what was registered.
        OSError: the cache's disk is full, for instance.
    """
    folder = cache / f"{index.digest}-{size}"
    if (found := _opened(folder, index, size)) is not None:
        return found
    _sweep(cache)
    partial = cache / f".{folder.name}.{socket.gethostname()}.{os.getpid()}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        errors = _decode_all(index, size, partial / PIXELS, progress, workers or os.cpu_count() or 1)
        manifest = {"version": 1, "digest": index.digest, "size": size, "errors": errors}
        (partial / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
        if folder.exists() and _opened(folder, index, size) is None:
            shutil.rmtree(folder)  # damaged
        try:
            partial.rename(folder)
        except OSError:
            if not folder.exists():
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    opened = _opened(folder, index, size)
    if opened is None:
        raise OSError(f"{folder} is not what was just written to it")
    return opened


def _sweep(cache: Path) -> None:
    """Removes what processes of this host that died left half done."""
    for left in cache.glob(f".*.{socket.gethostname()}.*"):
        pid = left.name.rpartition(".")[2]
        try:
            os.kill(int(pid), 0)
        except (ValueError, ProcessLookupError):
            shutil.rmtree(left, ignore_errors=True)
        except PermissionError:
            continue  # it lives, as somebody else


def decode(content: bytes, size: int) -> np.ndarray:
    """(size, size, 3) uint8, RGB, upright, of an encoded image. Raises ValueError with the reason."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of broken EXIF, say: it is the pixels that count
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=["JPEG", "PNG"]) as image:
                if image.width * image.height > MOST_PIXELS:
                    raise ValueError(f"it claims {image.width} x {image.height} pixels, more than {MOST_PIXELS:,}")
                image.load()
                upright = _rgb(_upright(image))
                return np.asarray(upright.resize((size, size), Image.Resampling.BILINEAR))
    except MemoryError:
        raise
    except Exception as error:  # whatever a hostile file makes of its decoder
        raise ValueError(str(error) or type(error).__name__) from None


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:
        return image  # its EXIF is broken, not its pixels


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits and more of grey
        values = np.asarray(image, dtype=np.int64)
        return Image.fromarray((values >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if "A" in image.mode or "transparency" in image.info:
        opaque = Image.new("RGBA", image.size, "white")
        opaque.alpha_composite(image.convert("RGBA"))
        return opaque.convert("RGB")
    return image.convert("RGB")


def _decode_all(
    index: Index, size: int, path: Path, progress: Callable[[int, int], None] | None, workers: int
) -> dict[int, str]:
    total = len(index.records)
    with path.open("wb") as file:
        if hasattr(os, "posix_fallocate"):
            # A full disk is an error here; behind a memory map it would be a signal that ends the process.
            os.posix_fallocate(file.fileno(), 0, total * size * size * 3)
        file.truncate(total * size * size * 3)
    pixels = np.memmap(path, np.uint8, "r+", shape=(total, size, size, 3))
    errors: dict[int, str] = {}
    with ThreadPoolExecutor(workers) as pool:
        for done, (position, result) in enumerate(_decoded(pool, index.records, size), start=1):
            if isinstance(result, str):
                errors[position] = result
            else:
                pixels[position] = result
            if progress is not None and (done % SAID_EVERY == 0 or done == total):
                progress(done, total)
    pixels.flush()
    return errors


def _decoded(
    pool: ThreadPoolExecutor, records: tuple[ImageRecord, ...], size: int
) -> Iterator[tuple[int, np.ndarray | str]]:
    """Results in order, a limited number of images at a time in memory."""

    def one(position: int) -> tuple[int, np.ndarray | str]:
        content = records[position].read_bytes()
        try:
            return position, decode(content, size)
        except ValueError as error:
            return position, str(error)

    for start in range(0, len(records), 256):
        yield from pool.map(one, range(start, min(start + 256, len(records))))


def _opened(folder: Path, index: Index, size: int) -> PixelCache | None:
    """The cache in a folder; None where it is not there or not whole."""
    shape = (len(index.records), size, size, 3)
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if (manifest["version"], manifest["digest"], manifest["size"]) != (1, index.digest, size):
            return None
        if (folder / PIXELS).stat().st_size != int(np.prod(shape)):
            return None
        pixels = np.memmap(folder / PIXELS, np.uint8, "r", shape=shape)
        return PixelCache(pixels, {int(position): why for position, why in manifest["errors"].items()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
