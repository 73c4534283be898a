"""Where and how a run computes: device, precision, threads; determinism."""

import os
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

import torch

Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class Compute:
    """What a run computes with. The same values on the same kind of CPU give the same bits."""

    device: torch.device
    precision: Precision
    threads: int

    def autocast(self) -> AbstractContextManager[None]:
        """The context of a forward pass; with fp32 it changes nothing."""
        enabled = self.precision == "bf16"
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=enabled)

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
        return {"device": name, "precision": self.precision, "threads": self.threads}


def choose_compute(precision: Literal["auto", "fp32", "bf16"], threads: int | None = None) -> Compute:
    """The best device there is; `auto` is bf16 where the device has instructions for it."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if precision == "auto":
        has_bf16 = torch.cuda.is_bf16_supported() if device.type == "cuda" else _cpu_has_bf16()
        precision = "bf16" if has_bf16 else "fp32"
    return Compute(device, precision, threads or os.cpu_count() or 1)


def _cpu_has_bf16() -> bool:
    check = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(check and check())
