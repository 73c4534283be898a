"""Several workers on one host, such as containers that all see every GPU: each takes those that no other one has."""

import fcntl
import os
from collections.abc import Sequence
from pathlib import Path

from services.errors import Conflict
from services.worker.devices import Device

_held: list[int] = []  # descriptors; the kernel lets the locks go with this process, however it ends


def take_free(cards: Sequence[Device], folder: Path, wanted: int | None) -> list[Device]:
    """The first `wanted` (None: all) of these GPUs that no other worker has taken in this folder, until this process
    ends.

    Raises:
        Conflict: all of them are taken.
    """
    folder.mkdir(parents=True, exist_ok=True)
    taken: list[Device] = []
    for card in cards:
        name = "-".join(card.uuids).replace("/", "_")  # older drivers name parts of cards MIG-GPU-…/1/0
        if len(taken) != wanted and _lock(folder / f"{name}.lock"):
            taken.append(card)
    if not taken:
        raise Conflict(f"all {len(cards)} GPUs of this host are taken by other workers that use {folder}")
    return taken


def _lock(path: Path) -> bool:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return False
    _held.append(descriptor)
    return True
