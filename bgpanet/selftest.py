"""Whether the devices of a process compute: a product of small whole numbers, whose answer is known to the last bit."""

import os

import torch

from bgpanet.events import Failure, Report
from bgpanet.runner import FAILED, SUCCEEDED

SIDE = 64


def check_device(report: Report) -> int:
    """Computes on every GPU that is to be visible, else on the CPU. Returns the exit status; reports what is wrong."""
    try:
        gpus = [entry for entry in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if entry]
        devices = [f"cuda:{number}" for number in range(len(gpus))] or ["cpu"]
        wrong = next(filter(None, map(_wrong, devices)), None)
    except Exception as error:
        wrong = f"{type(error).__name__}: {error}"
    if wrong is None:
        return SUCCEEDED
    report(Failure(reason="internal", message=wrong))
    return FAILED


def _wrong(device: str) -> str | None:
    numbers = torch.arange(SIDE * SIDE).reshape(SIDE, SIDE) % 7
    computed = (numbers.float().to(device) @ numbers.T.float().to(device)).cpu()
    return None if torch.equal(computed.long(), numbers @ numbers.T) else f"the {device} computes wrong products"
