"""What the slots of a worker compute on, and the labels that they have by themselves. GPUs are found by NVML."""

import contextlib
import functools
import os
import re
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import psutil

from bgpanet.specs import LABEL


@dataclass(frozen=True)
class Device:
    """What a slot computes on. uuids: the GPUs'; none: the CPU. model: theirs. memory_gb: of each, 10^9 bytes; None:
    not known. card: the driver's number of the one that it is a part of (MIG)."""

    name: str
    uuids: tuple[str, ...] = ()
    model: str | None = None
    memory_gb: float | None = None
    card: int | None = None

    @property
    def resource_classes(self) -> tuple[str, ...]:
        """Whose jobs it takes; see `bgpanet.specs.ResourcesSpec.resource_class`."""
        several = (f"gpu-{count}" for count in range(2, len(self.uuids) + 1))
        return ("any", "gpu", *several) if self.uuids else ("any", "cpu")

    @property
    def environment(self) -> dict[str, str]:
        # By UUID: numbers mean one card to the driver's library and may mean another to CUDA.
        return {"CUDA_VISIBLE_DEVICES": ",".join(self.uuids)}


Choose = Callable[[Sequence[Device]], list[Device]]


def find_devices(slots: int | None, gpus_per_slot: int = 1, choose: Choose | None = None) -> list[Device]:
    """The GPUs of this host that CUDA_VISIBLE_DEVICES leaves visible, so many together, else `slots` (or one) times its
    CPU, each with its share of the memory. No torch, no CUDA: the driver's library is asked. choose: takes some of the
    GPUs."""
    wanted = os.environ.get("CUDA_VISIBLE_DEVICES")
    try:
        cards = [] if wanted == "" else _named(gpus(), wanted)
        found = _together(choose(cards) if choose is not None and cards else cards, gpus_per_slot)[:slots]
    except DriverBroken as error:
        # It would be worse to compute on the CPU in the GPU's place: this slot will be unfit.
        found = [Device(f"GPU ({error})", ("GPU-silent",))]
    share = psutil.virtual_memory().total / 1e9 / (slots or 1)
    return found or [Device("CPU", memory_gb=share)] * (slots or 1)


def _named(found: Sequence[Device], wanted: str | None) -> list[Device]:
    """`visible`, but for a name that is none of them, such as a card of another host: its slot is unfit."""
    cards = visible(found, wanted)
    if found and not cards and wanted is not None and re.match(r"\s*(\d|GPU-|MIG-)", wanted):
        raise DriverBroken(f"CUDA_VISIBLE_DEVICES is {wanted}, which names none of this host's {len(found)} GPUs")
    return cards


def _together(found: Sequence[Device], count: int) -> list[Device]:
    """Devices of so many GPUs each, in their order; the last may have fewer. Parts of cards stay alone: CUDA shows a
    process no more than one."""
    alone, whole = [gpu for gpu in found if gpu.card is not None], [gpu for gpu in found if gpu.card is None]
    parts = [whole[first : first + count] for first in range(0, len(whole), count)]
    return [part[0] if len(part) == 1 else _joined(part) for part in parts] + alone


def _joined(part: Sequence[Device]) -> Device:
    models, memory = {gpu.model for gpu in part}, [gpu.memory_gb for gpu in part if gpu.memory_gb is not None]
    return Device(
        name="; ".join(gpu.name for gpu in part)[:200],
        uuids=tuple(uuid for gpu in part for uuid in gpu.uuids),
        model=part[0].model if len(models) == 1 else None,
        memory_gb=min(memory, default=None),
    )


def visible(found: Sequence[Device], wanted: str | None) -> list[Device]:
    """Those of all GPUs, in the driver's order, that CUDA_VISIBLE_DEVICES names, by number or the begin of a UUID.

    As in CUDA, what stands behind an entry that names none does not count. The number of a card that is divided names
    all of its parts.
    """
    if wanted is None:
        return list(found)
    chosen: list[Device] = []
    numbers = list(_numbers(found))
    for entry in filter(None, (part.strip() for part in wanted.split(","))):
        named = [gpu for number, gpu in zip(numbers, found, strict=True) if entry == str(number)]
        begun = [gpu for gpu in found if "".join(gpu.uuids).startswith(entry)]
        named = named or (begun if len(begun) == 1 else [])
        if not named:
            break
        chosen += named
    return chosen


def _numbers(found: Sequence[Device]) -> Iterator[int]:
    """The driver's number of the card of each; parts of one card follow each other."""
    number, before = -1, None
    for gpu in found:
        number += gpu.card is None or gpu.card != before
        before = gpu.card
        yield number


class DriverBroken(Exception):
    """There is a GPU driver, and it does not answer, or has none of the GPUs that were named."""


@functools.cache
def nvml() -> Any | None:
    """NVIDIA's management library, ready to be asked; None where this host has none, or no driver.

    Raises:
        DriverBroken: there is one, and it does not answer (of another version than the library, say).
    """
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except (pynvml.NVMLError_LibraryNotFound, pynvml.NVMLError_DriverNotLoaded):
        return None
    except pynvml.NVMLError as error:
        raise DriverBroken(str(error)) from error
    return pynvml


def gpus() -> list[Device]:
    """The GPUs of this host in the driver's order; of one that is divided (MIG), its parts. One that does not answer
    stays among them, for its number's sake: its slot is unfit."""
    library = nvml()
    if library is None:
        return []
    found = []
    for number in range(library.nvmlDeviceGetCount()):
        try:
            card = library.nvmlDeviceGetHandleByIndex(number)
            found += _parts(library, card, number) if _is_divided(library, card) else [_device(library, card, number)]
        except library.NVMLError as error:
            found.append(Device(f"GPU {number} ({error})", (f"GPU-silent-{number}",)))
    return found


def _device(library: Any, handle: Any, number: int, card: int | None = None) -> Device:
    model, uuid = library.nvmlDeviceGetName(handle), library.nvmlDeviceGetUUID(handle)
    return Device(f"{model}, GPU {number}", (uuid,), model, _memory_gb(library, handle), card)


def _is_divided(library: Any, card: Any) -> bool:
    try:
        return bool(library.nvmlDeviceGetMigMode(card)[0])
    except library.NVMLError:
        return False  # it can't be


def _parts(library: Any, card: Any, number: int) -> list[Device]:
    """Of a divided card, which CUDA can't use as a whole: the instances that can be seen from here."""
    found = []
    for place in range(library.nvmlDeviceGetMaxMigDeviceCount(card)):
        with contextlib.suppress(library.NVMLError):  # places that nothing has, or that this container has not
            part = library.nvmlDeviceGetMigDeviceHandleByIndex(card, place)
            found.append(_device(library, part, number, number))
    return found or [Device(f"GPU {number} (MIG is on, and it has no instance)", (f"GPU-silent-{number}",))]


def _memory_gb(library: Any, handle: Any) -> float | None:
    try:
        return float(library.nvmlDeviceGetMemoryInfo(handle).total / 1e9)
    except library.NVMLError:
        return None  # a card that shares the host's memory does not tell


def labels_of(worker: str, device: Device, extra: Iterable[str]) -> list[str]:
    """What jobs may ask for by name of a slot. Raises ValueError on a label that is none."""
    for label in extra:
        if not LABEL.fullmatch(label):
            raise ValueError(f"label {label!r}: 1 to 100 of a-z 0-9 _ . : = / -, a letter or digit first")
    own = {"host": socket.gethostname(), "worker": worker, "gpu": device.model or ""}
    return sorted({*extra, *(f"{name}={_slug(value)}"[:100] for name, value in own.items() if value)})


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9_.:=/-]+", "-", text.lower()).strip("-")
