"""Readers: one module a format. Adding one is a module with `read(path, progress)` and a line below."""

import sys
from collections.abc import Callable
from pathlib import Path

from bgpanet.data.index import Index
from bgpanet.data.pack import read_pack
from bgpanet.data.readers import csv_table, dicom, folder, ham10000, isic2018, isic2020, npz
from bgpanet.data.readers.draft import Progress
from bgpanet.errors import InvalidInput
from bgpanet.validation import unknown

READERS: dict[str, Callable[[Path, Progress | None], Index]] = {
    "ham10000": ham10000.read,
    "isic2018": isic2018.read,
    "isic2020": isic2020.read,
    "csv": csv_table.read,
    "folder": folder.read,
    "npz": npz.read,
    "dicom": dicom.read,
    "packed": read_pack,
}


def described() -> dict[str, str]:
    """What each format is and which files it needs: its reader's own description, the first line a summary."""
    return {name: (sys.modules[reader.__module__].__doc__ or "").strip() for name, reader in READERS.items()}


def read(format: str, path: Path, progress: Progress | None = None) -> Index:
    """The index of the data in a folder. `progress` is called with images done and in all.

    Raises:
        InvalidInput: unknown format, or data that can't be used; with every problem.
    """
    if format not in READERS:
        raise InvalidInput.one("format", unknown("format", format, [*READERS]))
    try:
        if not path.is_dir():
            raise InvalidInput.one("path", f"{path} is no folder that can be seen here")
        return READERS[format](path, progress)
    except OSError as error:
        raise InvalidInput.one("path", f"{error.filename or path} can't be read: {error.strerror}") from None
