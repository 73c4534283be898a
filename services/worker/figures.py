"""What a slot tells of its host and its device whenever it tells that it is there. What can't be told is left out."""

import contextlib
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

from services.worker.devices import Device, DriverBroken, nvml


def figures(home: Path, device: Device) -> dict[str, float]:
    """Of the host: CPU use in percent since the last call, memory and free disk of the home in bytes. Of a GPU: use in
    percent, memory in bytes, degrees Celsius, watts; of several: their mean use, the hottest, and the others' sums."""
    memory = psutil.virtual_memory()
    told = {"cpu_percent": psutil.cpu_percent(), "memory_used": memory.used, "memory_total": memory.total}
    with contextlib.suppress(OSError):
        told["disk_free"] = psutil.disk_usage(str(home)).free
    return told | _of_all([_gpu_figures(uuid) for uuid in device.uuids])


def _of_all(gpus: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """What every one of them tells, put together."""
    common = [name for name in (gpus[0] if gpus else ()) if all(name in told for told in gpus)]
    put_together: dict[str, Callable[[list[float]], float]] = {"gpu_percent": statistics.fmean, "gpu_celsius": max}
    return {name: put_together.get(name, sum)([told[name] for told in gpus]) for name in common}


def _gpu_figures(uuid: str) -> dict[str, float]:
    try:
        library = nvml()
    except DriverBroken:
        return {}
    if library is None:
        return {}
    told: dict[str, float] = {}
    try:
        handle = library.nvmlDeviceGetHandleByUUID(uuid)
    except library.NVMLError:
        return told
    ask: dict[str, Callable[[], float]] = {
        "gpu_percent": lambda: library.nvmlDeviceGetUtilizationRates(handle).gpu,
        "gpu_memory_used": lambda: library.nvmlDeviceGetMemoryInfo(handle).used,
        "gpu_memory_total": lambda: library.nvmlDeviceGetMemoryInfo(handle).total,
        "gpu_celsius": lambda: library.nvmlDeviceGetTemperature(handle, library.NVML_TEMPERATURE_GPU),
        "gpu_watts": lambda: library.nvmlDeviceGetPowerUsage(handle) / 1000,
    }
    for name, value in ask.items():
        with contextlib.suppress(library.NVMLError):  # not every card tells everything
            told[name] = value()
    return told
