import pytest

from services.worker.slots import Device, visible

GPUS = [Device("H100, GPU 0", "GPU-aa11"), Device("H100, GPU 1", "GPU-ab22"), Device("A100, GPU 2", "GPU-cc33")]


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
    assert [gpu.uuid for gpu in visible(GPUS, wanted)] == uuids


def test_a_slot_shows_its_child_one_gpu_by_its_uuid_or_none() -> None:
    assert GPUS[1].environment == {"CUDA_VISIBLE_DEVICES": "GPU-ab22"}
    assert Device("CPU").environment == {"CUDA_VISIBLE_DEVICES": ""}
    assert (GPUS[0].resource_classes, Device("CPU").resource_classes) == (("any", "gpu"), ("any", "cpu"))
