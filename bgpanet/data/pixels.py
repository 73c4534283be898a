"""Decoded pixels: every image once, in one memory-mapped array of bytes that all runs on a machine share.

The cache is a folder; each data set has a folder in it for each size, named by digest, size and version, with
`pixels.u8`, `manifest.json` (written last: where it stands, the pixels are whole) and two locks. `use.lock` is shared
by every process that has the pixels open, and had alone by one that removes them; its time of change is that of the
last use. `build.lock` is had by the one process that decodes, and says to those who wait how far it is.
"""

import io
import json
import os
import re
import secrets
import shutil
import time
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from bgpanet.data.cleaning import MOST_PIXELS
from bgpanet.data.index import ImageRecord, Index
from bgpanet.data.locks import FileLock

PIXELS, MANIFEST, USE, BUILD, EVICTION = "pixels.u8", "manifest.json", "use.lock", "build.lock", "eviction.lock"
VERSION = 2  # of what a cache holds: raise it when `decode` gives other pixels, so that they are never mixed
ORIENTATION = 0x0112  # in EXIF
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What an orientation asks for; 1 asks for nothing."""
SAID_EVERY = 64
WAIT_SECONDS = 0.1
OURS = re.compile(r"\.?[0-9a-f]{64}-\d+(-v\d+)?(\..+)?")  # nothing else in the folder is ever touched
STALE_SECONDS = 86_400.0  # after which a hidden folder is nobody's any more

Told = Callable[[int, int], None]


@dataclass(frozen=True)
class PixelCache:
    """pixels: (N, S, S, 3) uint8, RGB, read-only, in the order of the index; errors: why images could not be read.

    While `pixels` or a view of it lives, no process evicts it.
    """

    pixels: np.ndarray
    errors: dict[int, str]


@dataclass(frozen=True)
class Part:
    """The images from position `start` on. pixels: (n, S, S, 3) uint8; errors: by position in the index."""

    start: int
    pixels: np.ndarray
    errors: dict[int, str]


def open_pixels(
    index: Index,
    size: int,
    cache: Path,
    progress: Told | None = None,
    workers: int | None = None,
    limit: int | None = None,
) -> PixelCache:
    """The pixels of a data set at `size` x `size`, decoded now if they are not in `cache` yet.

    The whole frame is resized, its aspect not kept, as in the article. An image that can't be read is an entry in
    `errors` and black pixels. Of processes that want the same at once one decodes; the others wait, and one of them
    takes over should it die. `progress` is called with images done and in all, also while waiting; what it raises
    ends the wait. Before something is added, what was not used for longest goes until all of it fits into `limit`
    bytes, but for what is in use.

    Raises:
        DataDamaged: an image is not what was registered.
        OSError: the cache's disk is full, for instance, or its file system knows no locks.
    """
    folder = _folder(index, size, cache)
    use = FileLock(folder / USE)
    try:
        use.share()
        found = _opened(folder, index, size)
        if found is None:
            for part in _built(folder, index, size, SAID_EVERY, progress, workers, limit):
                if progress is not None:
                    progress(part.start + len(part.pixels), len(index.records))
            found = _opened(folder, index, size)
        if found is None:
            raise OSError(f"{folder} is not what was just written to it")
        use.touch()
    except BaseException:
        use.close()
        raise
    weakref.finalize(found.pixels.base, _used, use)
    return found


def _used(use: FileLock) -> None:
    use.touch()
    use.close()


def stream_pixels(
    index: Index,
    size: int,
    cache: Path,
    count: int,
    progress: Told | None = None,
    workers: int | None = None,
    limit: int | None = None,
    within: range | None = None,
) -> Iterator[Part]:
    """The same pixels in parts of `count` images, each as soon as it is decoded, while decoding goes on ahead.

    After the last part they are in the cache, unless they alone exceed `limit`: then they are not kept. `progress`
    is called only while another process decodes them. within: only these positions; they are taken from the cache
    where all images are in it, and else decoded and not kept.

    Raises:
        DataDamaged, OSError: as `open_pixels`.
    """
    folder = _folder(index, size, cache)
    too_much = limit is not None and _bytes(index, size) > limit
    if (within is not None or too_much) and not folder.exists():
        yield from _decoded_parts(index, size, count, workers, within=within)
        return
    with FileLock(folder / USE) as use:
        use.share()
        use.touch()
        found = _opened(folder, index, size)
        if found is not None:
            yield from _parts_of(found, count, within)
        elif within is not None:
            yield from _decoded_parts(index, size, count, workers, within=within)
        else:
            yield from _built(folder, index, size, count, progress, workers, limit)


def _folder(index: Index, size: int, cache: Path) -> Path:
    return cache / f"{index.digest}-{size}-v{VERSION}"


def _bytes(index: Index, size: int) -> int:
    return len(index.records) * size * size * 3


def _parts_of(found: PixelCache, count: int, within: range | None = None) -> Iterator[Part]:
    wanted = range(len(found.pixels)) if within is None else within
    for start in wanted[::count]:
        inside = range(start, min(start + count, wanted.stop))
        pixels = found.pixels[inside.start : inside.stop]
        yield Part(start, pixels, {n: found.errors[n] for n in inside if n in found.errors})


# ── Building ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _built(
    folder: Path, index: Index, size: int, count: int, progress: Told | None, workers: int | None, limit: int | None
) -> Iterator[Part]:
    """Decodes into the folder, whose use must be shared by the caller; or waits until another process has done so."""
    with FileLock(folder / BUILD) as build:
        while not build.try_alone():
            if progress is not None:
                progress(build.noted(), len(index.records))
            time.sleep(WAIT_SECONDS)
        if (found := _opened(folder, index, size)) is not None:
            yield from _parts_of(found, count)
            return
        build.note(0)
        for left in folder.iterdir():  # by one that died, or damaged
            if left.name not in (USE, BUILD):
                left.unlink()
        partial = folder / f".{PIXELS}.{secrets.token_hex(4)}"
        try:
            yield from _written(partial, build, index, size, count, workers, limit)
        finally:
            partial.unlink(missing_ok=True)


def _written(
    partial: Path, build: FileLock, index: Index, size: int, count: int, workers: int | None, limit: int | None
) -> Iterator[Part]:
    folder, total = partial.parent, len(index.records)
    _allocate(partial, _bytes(index, size), limit)
    try:
        pixels = np.memmap(partial, np.uint8, "r+", shape=(total, size, size, 3))
    except OSError as error:
        what = f"can't be mapped into memory ({error.strerror}); take a folder on a local disk"
        raise OSError(error.errno, what, str(partial)) from None
    errors: dict[int, str] = {}
    for part in _decoded_parts(index, size, count, workers, pixels):
        errors |= part.errors
        build.note(part.start + len(part.pixels))
        yield part
    pixels.flush()
    partial.rename(folder / PIXELS)
    manifest = {"version": VERSION, "digest": index.digest, "size": size, "errors": errors}
    written = folder / f".{MANIFEST}"
    written.write_text(json.dumps(manifest), encoding="utf-8")
    written.rename(folder / MANIFEST)


def _allocate(path: Path, size: int, limit: int | None) -> None:
    """An empty file of `size` bytes, after room was made for it. One process at a time, so that none counts on the
    room of another."""
    cache = path.parent.parent
    with FileLock(cache / EVICTION) as lock:
        lock.alone()
        _make_room(cache, size, limit)
        with path.open("wb") as file:
            if hasattr(os, "posix_fallocate"):
                # A full disk is an error here; behind a memory map it would be a signal that ends the process.
                os.posix_fallocate(file.fileno(), 0, size)
            file.truncate(size)


def _decoded_parts(
    index: Index,
    size: int,
    count: int,
    workers: int | None,
    into: np.ndarray | None = None,
    within: range | None = None,
) -> Iterator[Part]:
    """Parts in order, written `into` an array of all images where there is one."""
    wanted = range(len(index.records)) if within is None else within
    records = index.records[wanted.start : wanted.stop]
    results = _decoded(records, size, workers or os.cpu_count() or 1, ahead=2 * count)
    for start in wanted[::count]:
        stop = min(start + count, wanted.stop)
        pixels = np.zeros((stop - start, size, size, 3), np.uint8) if into is None else into[start:stop]
        errors: dict[int, str] = {}
        for position in range(start, stop):
            result = next(results)
            if isinstance(result, str):
                errors[position] = result
            else:
                pixels[position - start] = result
        yield Part(start, pixels, errors)


def _decoded(records: tuple[ImageRecord, ...], size: int, workers: int, ahead: int) -> Iterator[np.ndarray | str]:
    """Pixels or errors in order; `ahead` images are worked on or wait in memory."""

    def one(record: ImageRecord) -> np.ndarray | str:
        content = record.read_bytes()
        try:
            return decode(content, size)
        except ValueError as error:
            return str(error)

    pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
    waiting: deque[Future[np.ndarray | str]] = deque()
    try:
        for record in records:
            waiting.append(pool.submit(one, record))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _opened(folder: Path, index: Index, size: int) -> PixelCache | None:
    """The cache in a folder; None where it is not there or not whole."""
    shape = (len(index.records), size, size, 3)
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if (manifest["version"], manifest["digest"], manifest["size"]) != (VERSION, index.digest, size):
            return None
        if (folder / PIXELS).stat().st_size != int(np.prod(shape)):
            return None
        pixels = np.memmap(folder / PIXELS, np.uint8, "r", shape=shape)
        return PixelCache(pixels, {int(position): why for position, why in manifest["errors"].items()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


# ── Decoding ──────────────────────────────────────────────────────────────────────────────────────────────────────


def decode(content: bytes, size: int) -> np.ndarray:
    """(size, size, 3) uint8, RGB, upright, of an encoded image. Raises ValueError with the reason.

    A JPEG is decoded to the smallest of its natural scales (1/8, 2/8, ...) that is no smaller than `size`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of broken EXIF, say: it is the pixels that count
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=["JPEG", "PNG"]) as image:
                if image.width * image.height > MOST_PIXELS:
                    raise ValueError(f"it claims {image.width} x {image.height} pixels, more than {MOST_PIXELS:,}")
                read = _scaled(content, size, image) if image.format == "JPEG" else None
                if read is None:
                    image.load()
                    read = _rgb(image)
                return np.asarray(_upright(read.resize((size, size), Image.Resampling.BILINEAR), image))
    except MemoryError:
        raise
    except UnidentifiedImageError:
        raise ValueError("it is neither JPEG nor PNG, or its header is damaged") from None
    except Exception as error:  # whatever a hostile file makes of its decoder
        raise ValueError(str(error) or type(error).__name__) from None


def _scaled(content: bytes, size: int, opened: Image.Image) -> Image.Image | None:
    """The image by libjpeg's scaled decoding; None where that is not for it, or has anything to complain of:
    Pillow then decides what is an error."""
    if opened.mode not in ("RGB", "L"):
        return None
    try:
        pixels = simplejpeg.decode_jpeg(content, "RGB", min_height=size, min_width=size)
    except ValueError:
        return None
    return Image.fromarray(pixels)


def _upright(image: Image.Image, opened: Image.Image) -> Image.Image:
    """The image, turned as the EXIF of the opened file says."""
    try:
        turn = TURNS.get(opened.getexif().get(ORIENTATION, 1))
    except Exception:
        return image  # the EXIF is broken, not the pixels
    return image if turn is None else image.transpose(turn)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits and more of grey
        values = np.asarray(image, dtype=np.int64)
        return Image.fromarray((values >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if "A" in image.mode or "transparency" in image.info:
        opaque = Image.new("RGBA", image.size, "white")
        opaque.alpha_composite(image.convert("RGBA"))
        return opaque.convert("RGB")
    return image.convert("RGB")


# ── Eviction ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _make_room(cache: Path, wanted: int, limit: int | None) -> None:
    """Removes what nobody uses: what is not whole in any case, the rest by age until `wanted` bytes fit."""
    folders = sorted((path for path in cache.iterdir() if OURS.fullmatch(path.name)), key=_last_use)
    sizes = {folder: _size(folder) for folder in folders}
    held = sum(sizes.values())
    for folder in folders:
        too_much = limit is not None and held + wanted > limit
        if folder.name.startswith("."):  # being removed, or of an earlier version
            unwanted = time.time() - _last_use(folder) > STALE_SECONDS
        else:
            unwanted = too_much or not (folder / MANIFEST).exists()
        if unwanted and _evicted(folder):
            held -= sizes[folder]


def _evicted(folder: Path) -> bool:
    with FileLock(folder / USE) as use:
        if not use.try_alone():
            return False
        # First away under this name, at once: who comes now makes a new folder.
        removed = folder.rename(folder.with_name(f".{folder.name}.{secrets.token_hex(4)}"))
        shutil.rmtree(removed, ignore_errors=True)
        return True


def _last_use(folder: Path) -> float:
    for path in (folder / USE, folder):
        try:
            return path.stat().st_mtime
        except OSError:
            continue
    return 0.0


def _size(folder: Path) -> int:
    try:
        return sum(path.stat().st_size for path in folder.iterdir())
    except OSError:
        return 0  # it was removed this moment
