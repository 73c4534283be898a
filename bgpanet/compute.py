"""Where and how a run computes: device, precision, threads; determinism."""

import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Literal

import torch

from bgpanet.errors import DeviceMissing, OutOfMemory

Precision = Literal["fp32", "bf16", "fp16"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
NO_MEMORY = (
    "can't allocate memory",  # of a CPU, for which torch has no class
    "could not create a primitive",  # oneDNN, which says no more where it gets none
    "CUDA error: out of memory",  # what torch's allocator does not hand out itself: pinned memory, contexts, modules
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
"""What a RuntimeError says that is none but for want of memory."""


@dataclass(frozen=True)
class Compute:
    """What a process of a run computes with, and how many of them there are. The same values on the same kind of CPU
    give the same bits."""

    device: torch.device
    precision: Precision
    threads: int
    processes: int = 1

    def autocast(self) -> AbstractContextManager[None]:
        """The context of a forward pass; with fp32 it changes nothing."""
        return torch.autocast(self.device.type, dtype=DTYPES[self.precision], enabled=self.precision != "fp32")

    def activate(self) -> None:
        """Sets threads and determinism for this process."""
        torch.set_num_threads(self.threads)
        if self.device.type == "cpu":
            torch.use_deterministic_algorithms(True)
        else:
            torch.backends.cuda.matmul.allow_tf32 = True
            torch.backends.cudnn.allow_tf32 = True

    def describe(self) -> dict[str, str | int]:
        """For a run's record."""
        told = {"precision": self.precision, "threads": self.threads, "processes": self.processes}
        if self.device.type != "cuda":
            return {"device": "cpu", **told}
        # What is fp32 there multiplies 10 bits of a number, see `activate`; whoever compares figures must know.
        return {"device": torch.cuda.get_device_name(self.device), **told, "tf32": True}


def choose_compute(
    precision: Literal["auto", "fp32", "bf16", "fp16"], threads: int | None = None, processes: int = 1
) -> Compute:
    """The best device there is; `auto` is bf16 where the device has instructions for it. Several processes share the
    CPU's cores unless `threads` says how many each has.

    Raises:
        DeviceMissing: CUDA_VISIBLE_DEVICES names a GPU, and none answers: on a CPU the run would take weeks.
    """
    has_gpu = torch.cuda.is_available()
    if not has_gpu and named_gpus():
        told = f"CUDA_VISIBLE_DEVICES is {os.environ['CUDA_VISIBLE_DEVICES']}, and no GPU answers"
        raise DeviceMissing(f"{told}; mend the driver, or set it to nothing to compute on the CPU")
    device = torch.device("cuda" if has_gpu else "cpu")
    if precision == "auto":
        # Older cards are said to support it too: they emulate it, several times slower than fp32.
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False) if has_gpu else _cpu_has_bf16()
        precision = "bf16" if has_bf16 else "fp32"
    return Compute(device, precision, threads or max(1, (os.cpu_count() or 1) // processes), processes)


def named_gpus() -> int:
    """How many GPUs CUDA_VISIBLE_DEVICES names, whether they are there or not."""
    entries = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    return sum(re.match(r"\s*(\d|GPU-|MIG-)", entry) is not None for entry in entries)


@contextmanager
def out_of_memory(images: int) -> Iterator[None]:
    """Turns the device's want of memory within it into OutOfMemory, with the number of images that did not fit."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise OutOfMemory(f"{images} images at once do not fit the device's memory") from error
    except (RuntimeError, MemoryError) as error:
        if not wants_memory(error):
            raise
        raise OutOfMemory(f"{images} images at once do not fit the memory ({error})") from error


def wants_memory(error: BaseException) -> bool:
    """Whether it was raised for want of memory, the device's or the machine's."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(said in str(error) for said in NO_MEMORY)


def _cpu_has_bf16() -> bool:
    check = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(check and check())
