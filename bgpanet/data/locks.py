"""Locks on files. The kernel gives them back when their process ends, however it ends."""

import fcntl
import os
from pathlib import Path
from types import TracebackType


class FileLock:
    """An open lock file, made with its folder if need be; not locked yet. Other processes are kept out, and so are
    other FileLocks on the same file in this one.

    Raises:
        OSError: the file can't be made, or its file system has no locks.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = self._open()

    def share(self) -> None:
        """Waits until nobody has the lock alone. Where the file was removed meanwhile, a new one is made."""
        while True:
            self._flock(fcntl.LOCK_SH)
            if self._is_there():
                return
            os.close(self._descriptor)
            self._descriptor = self._open()

    def alone(self) -> None:
        """Waits until nobody else has the lock."""
        self._flock(fcntl.LOCK_EX)

    def try_alone(self) -> bool:
        """Whether this could be had at once."""
        return self._flock(fcntl.LOCK_EX | fcntl.LOCK_NB)

    def touch(self) -> None:
        """Sets the file's time of change to now."""
        os.utime(self._descriptor)

    def note(self, number: int) -> None:
        """Leaves a number in the file, for those who wait."""
        os.pwrite(self._descriptor, b"%019d" % number, 0)

    def noted(self) -> int:
        """What `note` left last; 0 where nothing was left."""
        return int(os.pread(self._descriptor, 19, 0) or 0)

    def close(self) -> None:
        """Gives the lock back."""
        os.close(self._descriptor)

    def __enter__(self) -> "FileLock":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _open(self) -> int:
        while True:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                return os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            except FileNotFoundError:
                continue  # its folder was removed this moment

    def _is_there(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._descriptor), self.path.stat())
        except FileNotFoundError:
            return False

    def _flock(self, operation: int) -> bool:
        try:
            fcntl.flock(self._descriptor, operation)
        except BlockingIOError:
            return False
        except OSError as error:
            what = f"can't be locked ({error.strerror}): its file system has no locks; take a folder on a local disk"
            raise OSError(error.errno, what, str(self.path)) from None
        return True
