"""What a killed API leaves in shared memory goes with the next start, and nobody else's does."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from services.telemetry.counts import HELD, take_folder

ROOT = Path(__file__).parents[4]
SERVES = """
import os, subprocess, sys
from pathlib import Path
from services.telemetry.counts import take_folder
folder = take_folder(Path(sys.argv[1]))
(folder / "counter_1.db").touch()
waits = "import os, sys; print(os.environ['FOLDER'], flush=True); sys.stdin.read()"
if sys.argv[2] == "alone":
    os.execve(sys.executable, [sys.executable, "-c", waits], {**os.environ, "FOLDER": str(folder)})
if os.fork() == 0:  # as a process of gunicorn, which outlives a first one that is killed by a moment
    sys.stdin.read()
    os._exit(0)
print(folder, flush=True)
os.kill(os.getpid(), 9)
"""


def serving(where: Path, how: str) -> tuple[subprocess.Popen[str], Path]:
    process = subprocess.Popen(
        [sys.executable, "-c", SERVES, str(where), how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def end(process: subprocess.Popen[str], number: int | None = None) -> None:
    if number is not None:
        process.send_signal(number)
    process.communicate(timeout=240)  # closes what its children wait for, and waits until they have ended


def test_folders_of_killed_ones_go_and_those_of_living_ones_stay(tmp_path: Path) -> None:
    living, kept = serving(tmp_path, "alone")
    killed, left = serving(tmp_path, "alone")
    orphan, still = serving(tmp_path, "with a child")
    try:
        orphan.wait(240)
        end(killed, signal.SIGKILL)
        strange = tmp_path / "bgpanet-counts"
        strange.mkdir()
        assert (left / "counter_1.db").exists()
        own = take_folder(tmp_path)
        assert set(tmp_path.iterdir()) == {kept, still, strange, own}
        assert (kept / "counter_1.db").exists()
        end(orphan)  # now its child has gone, too
        end(living, signal.SIGKILL)
        another = take_folder(tmp_path)
        assert set(tmp_path.iterdir()) == {strange, own, another}
    finally:
        living.kill()
        killed.kill()


def test_a_link_that_bears_such_a_name_is_not_followed(tmp_path: Path) -> None:
    precious, where = tmp_path / "precious", tmp_path / "shm"
    precious.mkdir()
    (precious / "file").touch()
    where.mkdir()
    os.symlink(precious, where / f"{HELD}x")
    take_folder(where)
    assert (precious / "file").exists()
