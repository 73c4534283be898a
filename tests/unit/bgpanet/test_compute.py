"""Which device and precision a run is given, and want of memory by whatever name it goes."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from bgpanet.compute import Compute, choose_compute, out_of_memory, wants_memory
from bgpanet.errors import DeviceMissing, OutOfMemory
from bgpanet.events import Event, Failure
from bgpanet.runner import FAILED, WRONG, Run, execute


class Properties:
    """What the driver tells of a card of this generation."""

    def __init__(self, major: int) -> None:
        self.major = major


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Has torch believe in a card of a generation; like the real ones, it takes tensors of bf16, whatever its age."""

    def there_is(major: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Properties(major))
        monkeypatch.setattr(torch.cuda, "_check_bf16_tensor_supported", lambda device: True)

    return there_is


@pytest.mark.parametrize(("major", "precision"), [(7, "fp32"), (8, "bf16"), (9, "bf16")])
def test_a_card_that_only_emulates_bf16_computes_in_fp32(card: Any, major: int, precision: str) -> None:
    card(major)
    assert choose_compute("auto").precision == precision
    assert choose_compute("bf16").precision == "bf16"


@pytest.mark.parametrize("named", ["0", "0,1", " 3", "GPU-5a1e7c3d", "MIG-5a1e7c3d"])
def test_a_gpu_that_is_named_and_does_not_answer_is_not_replaced_by_the_cpu(
    monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    with pytest.raises(DeviceMissing, match="no GPU answers"):
        choose_compute("auto")


@pytest.mark.parametrize("named", [None, "", "-1", "NoDevFiles"])
def test_where_no_gpu_is_named_the_cpu_computes(monkeypatch: pytest.MonkeyPatch, named: str | None) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if named is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert choose_compute("fp32").device.type == "cpu"


def test_a_missing_gpu_is_filed_so_that_another_worker_tries() -> None:
    assert DeviceMissing("gone").reason == "worker_lost"


def test_the_record_of_a_gpu_says_that_its_fp32_products_are_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "H100")
    told = Compute(torch.device("cuda"), "fp32", 4).describe()
    assert told == {"device": "H100", "precision": "fp32", "threads": 4, "processes": 1, "tf32": True}
    assert "tf32" not in Compute(torch.device("cpu"), "fp32", 4).describe()


WANTING = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes."),
    MemoryError("Unable to allocate 4.00 GiB for an array"),
]


@pytest.mark.parametrize("error", WANTING, ids=lambda error: type(error).__name__)
def test_want_of_memory_is_known_by_every_name(error: Exception) -> None:
    assert wants_memory(error)
    with pytest.raises(OutOfMemory, match="7 images at once"), out_of_memory(7):
        raise error


@pytest.mark.parametrize("said", ["CUDA error: an illegal memory access was encountered", "shape '[2]' is invalid"])
def test_other_errors_stay_what_they_are(said: str) -> None:
    with pytest.raises(RuntimeError, match=re.escape(said)) as raised, out_of_memory(7):
        raise RuntimeError(said)
    assert not isinstance(raised.value, OutOfMemory)
    assert not wants_memory(raised.value)


def reasons(tmp_path: Path, spec: str) -> list[str]:
    """Under which failures a training of this spec is filed."""
    path = tmp_path / "spec.json"
    path.write_text(spec)
    heard: list[Event] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        assert execute(Run("train", path, tmp_path / "out", tmp_path / "cache"), heard.append) in (FAILED, WRONG)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return [event.reason for event in heard if isinstance(event, Failure)]


@pytest.mark.parametrize(
    ("error", "reason"),
    [(WANTING[0], "out_of_memory"), (WANTING[-1], "out_of_memory"), (RuntimeError("CUDA error: unknown"), "internal")],
)
def test_want_of_memory_outside_a_step_is_filed_as_such_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    def training(*given: object) -> None:
        raise error

    monkeypatch.setattr("bgpanet.experiment.train", training)
    assert reasons(tmp_path, '{"model": "bgpanet_micro"}') == [reason]


@pytest.mark.parametrize(("named", "reason"), [("GPU-1,GPU-2", "worker_lost"), ("GPU-1", "invalid_input")])
def test_of_several_gpus_that_were_promised_and_are_gone_another_worker_may_have_as_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str, reason: str
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert reasons(tmp_path, '{"model": "bgpanet_micro", "resources": {"gpus": 2}}') == [reason]


IMPORTS = """
import torch
touched = []
def told(module, name):
    real = getattr(module, name)
    def touch(*given, **named):
        touched.append(name)
        return real(*given, **named)
    setattr(module, name, touch)
for name in ("is_available", "device_count", "_lazy_init", "init", "current_device", "get_device_properties"):
    told(torch.cuda, name)
for name in ("_cuda_getDeviceCount", "_cuda_init", "_cuda_getDevice"):
    if hasattr(torch._C, name):
        told(torch._C, name)
import os, socket
from bgpanet.forkserver import serve
ours, theirs = socket.socketpair()
ours.shutdown(socket.SHUT_WR)
serve(theirs)
assert ours.recv(100) == b'{"ready": true}\\n'
print(touched)
"""


def test_the_fork_server_touches_no_gpu_before_it_forks() -> None:
    """CUDA does not survive a fork: once it was asked for a device, no child could use one."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
