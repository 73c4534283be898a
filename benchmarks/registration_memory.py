"""How much memory registering takes: `python -m benchmarks.registration_memory GIGABYTES [FOLDER]`.

Writes a tar of noise images of that size, uploads it through a real `bgpanet up`, registers it, and prints the largest
resident memory of the API and of what the worker started, as Linux tells it. Everything is deleted afterwards; the disk
must hold four times the size meanwhile.
"""

import io
import os
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from services.client import Client

IMAGE = (1200, 900)  # noise does not compress: about 1 MB each
CLASSES = ("a", "b")
KINDS = {"gunicorn": "API", "bgpanet.forkserver": "child", "cli worker": "worker", "cli scheduler": "scheduler"}
"""Kinds of processes by what stands in their command line."""


def draw(path: Path, gigabytes: float) -> int:
    """A tar of class folders with images that are all different. Returns their number."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (IMAGE[1], IMAGE[0], 3), dtype=np.uint8)
    count = 0
    with tarfile.open(path, "w") as tar:
        while path.stat().st_size < gigabytes * 1e9:
            buffer = io.BytesIO()
            Image.fromarray(np.roll(coarse, count, axis=count % 2)).save(buffer, "JPEG", quality=90)
            member = tarfile.TarInfo(f"set/{CLASSES[count % 2]}/i{count}.jpg")
            member.size = buffer.tell()
            buffer.seek(0)
            tar.addfile(member, buffer)
            count += 1
    return count


def watch(pid: int, peaks: dict[str, int], done: threading.Event) -> None:
    """The largest resident memory of each kind of process below `pid`, bytes."""
    while not done.wait(0.1):
        for process in psutil.Process(pid).children(recursive=True):
            try:
                words, memory = " ".join(process.cmdline()), process.memory_info().rss
            except psutil.Error:
                continue
            for mark, kind in KINDS.items():
                if mark in words:
                    peaks[kind] = max(peaks.get(kind, 0), memory)


def measure(gigabytes: float, folder: Path) -> dict[str, float]:
    """Peaks in MB by kind of process, and seconds of upload and registration."""
    archive, home = folder / "large.tar", folder / "home"
    count = draw(archive, gigabytes)
    command = [sys.executable, "-m", "services.cli", "up", "--home", str(home), "--port", "0"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BGPANET_")}
    peaks: dict[str, int] = {}
    done = threading.Event()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:  # noqa: S603
        try:
            assert process.stdout is not None  # noqa: S101 - a pipe was asked for
            url = process.stdout.readline().removeprefix("ready: ").strip()
            watcher = threading.Thread(target=watch, args=(process.pid, peaks, done))
            watcher.start()
            with Client(url, (home / "token").read_text(encoding="utf-8").strip()) as client:
                began = time.monotonic()
                client.upload(archive)
                sent = time.monotonic()
                made = client.add_dataset("large", "folder", archive)
                ended = time.monotonic()
            done.set()
            watcher.join()
        finally:
            done.set()
            process.terminate()
    if made["images"] != count:
        raise SystemExit(f"{made['images']} of {count} images were registered")
    figures = {f"{kind}, peak MB": round(peak / 1e6) for kind, peak in sorted(peaks.items())}
    size = archive.stat().st_size
    seconds = {"upload, s": round(sent - began), "registering, s": round(ended - sent)}
    return {"archive, MB": round(size / 1e6), "images": count, **figures, **seconds}


def main() -> None:
    """Measures and prints."""
    gigabytes = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    with tempfile.TemporaryDirectory(dir=sys.argv[2] if len(sys.argv) > 2 else None) as folder:
        for name, value in measure(gigabytes, Path(folder)).items():
            print(f"{name:<20} {value:>10,}")


if __name__ == "__main__":
    main()
