"""Where and how a run computes: device, precision, threads; determinism."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Literal

import torch

from bgpanet.errors import OutOfMemory

Precision = Literal["fp32", "bf16", "fp16"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


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
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"
        return {"device": name, "precision": self.precision, "threads": self.threads, "processes": self.processes}


def choose_compute(
    precision: Literal["auto", "fp32", "bf16", "fp16"], threads: int | None = None, processes: int = 1
) -> Compute:
    """The best device there is; `auto` is bf16 where the device has instructions for it. Several processes share the
    CPU's cores unless `threads` says how many each has."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if precision == "auto":
        has_bf16 = torch.cuda.is_bf16_supported() if device.type == "cuda" else _cpu_has_bf16()
        precision = "bf16" if has_bf16 else "fp32"
    return Compute(device, precision, threads or max(1, (os.cpu_count() or 1) // processes), processes)


@contextmanager
def out_of_memory(images: int) -> Iterator[None]:
    """Turns the device's want of memory within it into OutOfMemory, with the number of images that did not fit."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise OutOfMemory(f"{images} images at once do not fit the device's memory") from error
    except RuntimeError as error:
        # On a CPU it has no class of its own. The latter is oneDNN's, which says no more where it gets no memory.
        if not any(said in str(error) for said in ("can't allocate memory", "could not create a primitive")):
            raise
        raise OutOfMemory(f"{images} images at once do not fit this machine's memory ({error})") from error


def _cpu_has_bf16() -> bool:
    check = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(check and check())
