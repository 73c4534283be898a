"""What a worker finds to compute on, with the driver's library and without it."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from services.worker import devices
from services.worker.devices import Device, find_devices, labels_of, visible
from services.worker.figures import figures

GPUS = [
    Device("H100, GPU 0", ("GPU-aa11",)),
    Device("H100, GPU 1", ("GPU-ab22",)),
    Device("A100, GPU 2", ("GPU-cc33",)),
]


class NVMLError(Exception):
    """As the library's."""


class Library:
    """Stands in for NVIDIA's library, which needs a driver: two cards, of which the second does not tell its power."""

    NVMLError = NVMLError
    NVML_TEMPERATURE_GPU = 0

    def nvmlInit(self) -> None:  # noqa: N802
        pass

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return 3

    def nvmlDeviceGetHandleByIndex(self, number: int) -> int:  # noqa: N802
        if number == 1:
            raise NVMLError("GPU is lost")
        return number

    def nvmlDeviceGetMigMode(self, handle: int) -> list[int]:  # noqa: N802
        raise NVMLError("Not Supported")

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> int:  # noqa: N802
        return int(uuid.removeprefix("GPU-"))

    def nvmlDeviceGetName(self, handle: int) -> str:  # noqa: N802
        return "NVIDIA H100 80GB HBM3"

    def nvmlDeviceGetUUID(self, handle: int) -> str:  # noqa: N802
        return f"GPU-{handle}"

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:  # noqa: N802
        return SimpleNamespace(total=85_520_809_984, used=1_000_000_000)

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:  # noqa: N802
        return SimpleNamespace(gpu=37, memory=5)

    def nvmlDeviceGetTemperature(self, handle: int, sensor: int) -> int:  # noqa: N802
        return 41

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:  # noqa: N802
        if handle == 2:
            raise NVMLError("Not Supported")
        return 123_400


class Divided(Library):
    """Card 0 has two instances, in places 0 and 2, card 1 is whole, card 2 is to be divided and is not yet."""

    def nvmlDeviceGetHandleByIndex(self, number: int) -> int:  # noqa: N802
        return number

    def nvmlDeviceGetMigMode(self, handle: int) -> list[int]:  # noqa: N802
        return [int(handle != 1), int(handle != 1)]

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: int) -> int:  # noqa: N802
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: int, place: int) -> int:  # noqa: N802
        if handle != 0 or place not in (0, 2):
            raise NVMLError("Not Found")
        return 100 + place

    def nvmlDeviceGetName(self, handle: int) -> str:  # noqa: N802
        return super().nvmlDeviceGetName(handle) + (" MIG 1g.10gb" if handle >= 100 else "")

    def nvmlDeviceGetUUID(self, handle: int) -> str:  # noqa: N802
        return f"MIG-{handle}" if handle >= 100 else f"GPU-{handle}"

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> int:  # noqa: N802
        return int(uuid.removeprefix("MIG-").removeprefix("GPU-"))

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:  # noqa: N802
        return (
            SimpleNamespace(total=10_200_547_328, used=1_000_000)
            if handle >= 100
            else super().nvmlDeviceGetMemoryInfo(handle)
        )

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:  # noqa: N802
        if handle >= 100:
            raise NVMLError("Not Supported")
        return super().nvmlDeviceGetUtilizationRates(handle)


@pytest.fixture(autouse=True)
def asked_anew(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    devices.nvml.cache_clear()
    yield
    devices.nvml.cache_clear()


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", Library())


@pytest.mark.parametrize(
    ("wanted", "uuids"),
    [
        (None, ["GPU-aa11", "GPU-ab22", "GPU-cc33"]),
        ("", []),
        ("2", ["GPU-cc33"]),
        ("1,0", ["GPU-ab22", "GPU-aa11"]),
        ("GPU-cc33, 0", ["GPU-cc33", "GPU-aa11"]),
        ("GPU-ab", ["GPU-ab22"]),
        ("GPU-a", []),
        ("0,7,1", ["GPU-aa11"]),
        ("-1", []),
    ],
)
def test_only_the_gpus_that_are_left_visible_are_used(wanted: str | None, uuids: list[str]) -> None:
    assert [uuid for gpu in visible(GPUS, wanted) for uuid in gpu.uuids] == uuids


def test_a_slot_shows_its_child_one_gpu_by_its_uuid_or_none() -> None:
    assert GPUS[1].environment == {"CUDA_VISIBLE_DEVICES": "GPU-ab22"}
    assert Device("CPU").environment == {"CUDA_VISIBLE_DEVICES": ""}
    assert (GPUS[0].resource_classes, Device("CPU").resource_classes) == (("any", "gpu"), ("any", "cpu"))


@pytest.mark.skipif(Path("/proc/driver/nvidia").exists(), reason="this host has a driver")
def test_without_a_driver_there_are_as_many_slots_on_the_cpu_as_asked_for_that_share_its_memory(tmp_path: Path) -> None:
    one, two = find_devices(None), find_devices(2)
    assert [device.name for device in one + two] == ["CPU"] * 3
    assert {device.uuids for device in one + two} == {()}
    assert one[0].memory_gb == pytest.approx(2 * (two[0].memory_gb or 0))
    told = figures(tmp_path, one[0])
    assert told.keys() == {"cpu_percent", "memory_used", "memory_total", "disk_free"}
    assert min(told["memory_total"], told["disk_free"]) > 0


def test_without_the_binding_a_worker_is_one_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert [device.name for device in find_devices(None)] == ["CPU"]


def test_gpus_have_their_model_and_memory_and_a_lost_one_keeps_the_numbers_of_the_others(library: None) -> None:
    first, lost, last = find_devices(None)
    assert (first.name, first.uuids, first.memory_gb) == ("NVIDIA H100 80GB HBM3, GPU 0", ("GPU-0",), 85.520809984)
    assert ("GPU is lost" in lost.name, lost.model, lost.resource_classes) == (True, None, ("any", "gpu"))
    assert (last.name, last.uuids) == ("NVIDIA H100 80GB HBM3, GPU 2", ("GPU-2",))
    assert find_devices(1) == [first]


@pytest.mark.parametrize("named", ["7", "GPU-ffff", "MIG-5a1e7c3d"])
def test_a_named_gpu_that_is_not_here_is_no_reason_to_compute_on_the_cpu(
    library: None, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    (slot,) = find_devices(None)
    assert (slot.resource_classes, slot.environment) == (("any", "gpu"), {"CUDA_VISIBLE_DEVICES": "GPU-silent"})
    assert f"CUDA_VISIBLE_DEVICES is {named}" in slot.name
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert [device.name for device in find_devices(None)] == ["CPU"]


def test_several_gpus_are_one_slot_for_jobs_of_as_many_or_fewer(library: None, tmp_path: Path) -> None:
    both, last = find_devices(None, gpus_per_slot=2)
    assert both.environment == {"CUDA_VISIBLE_DEVICES": "GPU-0,GPU-silent-1"}
    assert (both.resource_classes, last.resource_classes) == (("any", "gpu", "gpu-2"), ("any", "gpu"))
    assert (both.model, last.uuids) == (None, ("GPU-2",))
    assert find_devices(1, gpus_per_slot=2) == [both]
    pair = figures(tmp_path, Device("two cards", ("GPU-0", "GPU-0")))
    assert (pair["gpu_percent"], pair["gpu_celsius"], pair["gpu_watts"]) == (37, 41, 246.8)
    assert pair["gpu_memory_total"] == 2 * 85_520_809_984
    assert "gpu_watts" not in figures(tmp_path, Device("two cards", ("GPU-0", "GPU-2")))


def test_a_gpu_tells_its_figures_but_for_those_that_it_does_not_have(library: None, tmp_path: Path) -> None:
    told = figures(tmp_path, Device("a card", ("GPU-0",)))
    assert (told["gpu_percent"], told["gpu_celsius"], told["gpu_watts"]) == (37, 41, 123.4)
    assert (told["gpu_memory_used"], told["gpu_memory_total"]) == (1_000_000_000, 85_520_809_984)
    assert told.keys() - figures(tmp_path, Device("a card", ("GPU-2",))).keys() == {"gpu_watts"}


def test_each_instance_of_a_divided_card_is_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", Divided())
    first, second, whole, empty = devices.gpus()
    assert [gpu.uuids for gpu in (first, second, whole)] == [("MIG-100",), ("MIG-102",), ("GPU-1",)]
    assert (first.environment, first.memory_gb) == ({"CUDA_VISIBLE_DEVICES": "MIG-100"}, 10.200547328)
    assert "gpu=nvidia-h100-80gb-hbm3-mig-1g.10gb" in labels_of("w", first, ())
    assert ("no instance" in empty.name, empty.resource_classes) == (True, ("any", "gpu"))  # unfit, and no CPU
    told = figures(tmp_path, first)
    assert (told["gpu_memory_total"], "gpu_percent" in told) == (10_200_547_328, False)

    def chosen(wanted: str) -> list[str]:
        return [uuid for gpu in visible(devices.gpus(), wanted) for uuid in gpu.uuids]

    assert chosen("0") == ["MIG-100", "MIG-102"]
    assert chosen("1") == ["GPU-1"]
    assert chosen("MIG-102,1") == ["MIG-102", "GPU-1"]
    assert chosen("MIG-10") == []
    # CUDA shows a process one instance and no more, so none is put together with others.
    assert [gpu.uuids for gpu in find_devices(None, gpus_per_slot=2)] == [
        ("GPU-1", "GPU-silent-2"),
        ("MIG-100",),
        ("MIG-102",),
    ]


def test_what_is_asked_of_the_library_is_what_it_has() -> None:
    import pynvml

    asked = {name for kind in (Library, Divided) for name in vars(kind) if name.startswith("nvml")}
    assert [name for name in sorted(asked) if not callable(getattr(pynvml, name, None))] == []


def test_every_slot_is_labelled_with_its_host_its_worker_and_its_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "Node-A.lab")
    gpu = Device("NVIDIA H100 80GB HBM3, GPU 0", ("GPU-0",), "NVIDIA H100 80GB HBM3")
    own = ["gpu=nvidia-h100-80gb-hbm3", "host=node-a.lab", "worker=first"]
    assert labels_of("first", gpu, ()) == own
    assert labels_of("first", gpu, ("room=2", "fast")) == sorted([*own, "fast", "room=2"])
    assert labels_of("first", Device("CPU"), ()) == own[1:]


@pytest.mark.parametrize("label", ["", "Fast", "a b", "=x", "x" * 101, "fast\n"])
def test_a_label_that_is_none_is_refused(label: str) -> None:
    with pytest.raises(ValueError, match="label"):
        labels_of("first", Device("CPU"), (label,))


def test_a_driver_that_does_not_answer_is_no_reason_to_compute_on_the_cpu(
    library: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(self: Library) -> None:
        raise NVMLError("Driver/library version mismatch")

    for name in ("LibraryNotFound", "DriverNotLoaded"):
        monkeypatch.setattr(Library, f"NVMLError_{name}", type(name, (NVMLError,), {}), raising=False)
    monkeypatch.setattr(Library, "nvmlInit", broken)
    (device,) = find_devices(None)
    assert (device.resource_classes, "version mismatch" in device.name) == (("any", "gpu"), True)
    assert "gpu_percent" not in figures(tmp_path, device)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert [device.name for device in find_devices(None)] == ["CPU"]
