"""The folder in which all processes of one API keep their numbers, and the folders of APIs that were killed.

Its owner holds a lock on it, which the kernel lets go when the last process of that API has ended, however it ended.
So a folder without a lock belongs to nobody, in whatever container its process had which number.
"""

import fcntl
import os
import shutil
import tempfile
from pathlib import Path

BEGUN, HELD = "bgpanet-counts-begun-", "bgpanet-counts-of-"


def take_folder(where: Path) -> Path:
    """A new folder in `where`, which stays this process's and its children's, also beyond `exec`. Those that nobody
    holds any more are deleted."""
    made = Path(tempfile.mkdtemp(prefix=BEGUN, dir=where))
    held = os.open(made, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(held, fcntl.LOCK_EX)
    os.set_inheritable(held, True)
    # Others look at this name alone, and see it only with its lock.
    folder = made.rename(made.with_name(HELD + made.name.removeprefix(BEGUN)))
    for other in where.glob(f"{HELD}*"):
        _delete_if_left(other)
    return folder


def _delete_if_left(folder: Path) -> None:
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:  # of another user, or just deleted by another API that starts
        return
    try:
        if os.fstat(descriptor).st_uid == os.getuid():
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
    except BlockingIOError:
        pass  # somebody's
    finally:
        os.close(descriptor)
