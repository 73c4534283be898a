"""Workers that share a host's GPUs: no card twice, and a card is free again however its worker ended."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from services.errors import Conflict
from services.worker import devices
from services.worker.devices import Device, find_devices
from services.worker.reservation import take_free

CARDS = [Device("one", ("GPU-1",)), Device("two", ("GPU-2",)), Device("three", ("GPU-3",))]
OTHER = """
import sys
from pathlib import Path
from services.worker.devices import Device
from services.worker.reservation import take_free
cards = [Device(name, (uuid,)) for name, uuid in (("one", "GPU-1"), ("two", "GPU-2"), ("three", "GPU-3"))]
print(",".join(device.name for device in take_free(cards, Path(sys.argv[1]), int(sys.argv[2]))), flush=True)
sys.stdin.read()
"""


def test_each_worker_takes_cards_that_no_other_has_until_it_dies(tmp_path: Path) -> None:
    command = [sys.executable, "-c", OTHER, str(tmp_path)]
    root = Path(__file__).parents[4]
    with subprocess.Popen([*command, "2"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root) as other:
        assert other.stdout is not None
        assert other.stdout.readline().strip() == "one,two"
        assert [device.name for device in take_free(CARDS, tmp_path, 1)] == ["three"]
        with pytest.raises(Conflict, match="all 3 GPUs"):
            take_free(CARDS, tmp_path, 1)
        other.kill()
        other.wait()
    assert [device.name for device in take_free(CARDS, tmp_path, None)] == ["one", "two"]


def test_slots_of_several_gpus_share_a_host_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "gpus", lambda: CARDS)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    choose = partial(take_free, folder=tmp_path, wanted=2)
    (slot,) = find_devices(1, 2, choose)
    assert slot.uuids == ("GPU-1", "GPU-2")
    (rest,) = find_devices(1, 2, choose)
    assert rest.uuids == ("GPU-3",)


def test_a_host_without_gpus_has_nothing_to_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "gpus", list)
    assert [device.name for device in find_devices(1, 1, partial(take_free, folder=tmp_path, wanted=1))] == ["CPU"]
