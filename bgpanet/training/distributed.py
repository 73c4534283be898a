"""Several processes of one machine, started by torchrun, that train and infer as one: a GPU each, or CPUs.

It is the same run as with one process: `batch_size` counts the images of all, every process takes its part of each
batch, and what is random is drawn for the whole batch, of which each takes the draws of its own images. Only the
order in which floats are added differs. Gradients are averaged by torch's DistributedDataParallel. The first process
alone writes and speaks; whatever decides how the run goes on (the loss, the wish to stop, validation) is agreed upon.

On a CPU two processes that die and go on end with the same bits, as one does. With more than two, or on GPUs, the
libraries below choose the order of their sums.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel
from torchvision.ops import StochasticDepth

from bgpanet.compute import Compute
from bgpanet.errors import InvalidInput, NonFiniteLoss
from bgpanet.inference import infer_logits

PATIENCE = timedelta(hours=12)
"""How long a process waits for the others: one may decode a whole data set meanwhile. torchrun sees when one dies."""


@dataclass(frozen=True)
class Processes:
    """The processes of this run, as one of them sees them. `number` counts from 0; the first leads."""

    number: int = 0
    count: int = 1
    store: Any = None

    @property
    def leads(self) -> bool:
        """Whether it is this one that writes and speaks."""
        return self.number == 0

    def wait(self) -> None:
        """Returns when all have come here."""
        self.total(0.0)

    def total(self, value: float) -> float:
        """The sum of what each has; the same for all."""
        return float(self._reduced(value, "SUM"))

    def any(self, flag: bool) -> bool:
        """Whether it is true for at least one; the same for all."""
        return bool(self._reduced(float(flag), "MAX"))

    def are_alike(self, value: float) -> bool:
        """Whether all have the same value."""
        return float(self._reduced(value, "MAX")) == -float(self._reduced(-value, "MAX"))

    @contextmanager
    def first_alone(self) -> Iterator[None]:
        """The first does what is within, then the others do: they find what it left in a cache."""
        if not self.leads:
            self.wait()
        yield
        if self.leads:
            self.wait()  # not reached when it failed: then torchrun ends the others

    def go_on_after(self, error: Exception) -> bool:
        """Whether all have met this error, so that they can do something else together."""
        return self.count == 1 or isinstance(error, (InvalidInput, NonFiniteLoss))

    def is_first_to_fail(self) -> bool:
        """True for the process that asks first. The others fail of its end, which nobody needs to be told."""
        mine = str(self.number)
        return self.store is None or self.store.compare_set("bgpanet/failed", "", mine).decode() == mine

    def leave(self) -> None:
        """Ends the connections, when all have come here."""
        if self.count > 1:
            self.wait()
            dist.destroy_process_group()

    def _reduced(self, value: float, how: str) -> float:
        if self.count == 1:
            return value
        held = torch.tensor(value, dtype=torch.float64)  # on the CPU: nothing waits for a GPU here
        dist.all_reduce(held, getattr(dist.ReduceOp, how))
        return float(held)


ALONE = Processes()


def join() -> Processes:
    """Joins the processes that torchrun started, this one on the GPU of its number; `ALONE` without torchrun.

    Raises:
        InvalidInput: they are on several machines, or more than there are GPUs.
    """
    if not dist.is_available() or not dist.is_torchelastic_launched() or os.environ["WORLD_SIZE"] == "1":
        return ALONE
    number, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if os.environ["LOCAL_WORLD_SIZE"] != str(count):
        raise InvalidInput.one("torchrun", "must start all processes on one machine; use --standalone")
    has_gpus = torch.cuda.is_available()
    if has_gpus:
        there = torch.cuda.device_count()
        if there < count:
            raise InvalidInput.one("torchrun", f"{count} processes want a GPU each, and {there} are here")
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    store, _, _ = next(rendezvous("env://", timeout=PATIENCE))
    backend = "cpu:gloo,cuda:nccl" if has_gpus else "gloo"
    dist.init_process_group(backend, store=store, rank=number, world_size=count, timeout=PATIENCE)
    return Processes(number, count, store)


# ── Parts of a batch ──────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Part:
    """Rows [first, last) of a batch, which pass the processes at once, and [start, stop), which are this process's.

    copies: how many processes have these rows: one, but where there are fewer rows than processes.
    """

    first: int
    last: int
    start: int
    stop: int
    copies: int = 1

    @property
    def rows(self) -> slice:
        return slice(self.start, self.stop)


def parts(images: int, size: int, processes: Processes) -> list[Part]:
    """The parts of a batch of so many images, `size` images or fewer for each process at a time."""
    found = []
    for first in range(0, images, size * processes.count):
        last = min(first + size * processes.count, images)
        if last - first < processes.count:
            # One without an image would leave the others waiting, so it shares one with another process.
            row = processes.number % (last - first)
            copies = len(range(row, processes.count, last - first))
            found.append(Part(first, last, first + row, first + row + 1, copies))
        else:
            begin, end = _stretch(last - first, processes)
            found.append(Part(first, last, first + begin, first + end))
    return found


def _stretch(total: int, processes: Processes) -> tuple[int, int]:
    """Begin and end of what a process takes of a total; they differ by one at most."""
    return total * processes.number // processes.count, total * (processes.number + 1) // processes.count


def rows_of(parts: list[Part]) -> np.ndarray:
    """The rows of the batch that are this process's, ascending."""
    return np.concatenate([np.arange(part.start, part.stop) for part in parts])


# ── The network ───────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Present:
    """The part that passes the network just now."""

    part: Part = field(default_factory=lambda: Part(0, 0, 0, 0))


class _ChanceOfAll(nn.Module):
    """Dropout, or stochastic depth by image, drawn for the whole part as by one process."""

    def __init__(self, p: float, by_image: bool, present: Present) -> None:
        super().__init__()
        self.p, self.by_image, self.present = p, by_image, present

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, …), B the images of this process."""
        if not self.training or self.p == 0:
            return x
        part = self.present.part
        shape = (part.last - part.first, *([1] * (x.ndim - 1) if self.by_image else x.shape[1:]))
        noise = torch.empty(shape, dtype=x.dtype, device=x.device).bernoulli_(1 - self.p)
        if self.p < 1:
            noise.div_(1 - self.p)
        return x * noise[part.start - part.first : part.stop - part.first]


def adapt(model: nn.Module, processes: Processes, device: torch.device) -> tuple[nn.Module, Present]:
    """The network with layers that act on all processes' images: its chance and its batch normalisation. Names and
    parameters stay. One process keeps the network as it is.

    Raises:
        InvalidInput: several processes on CPUs would normalise by parts of a batch.
    """
    present = Present()
    if processes.count == 1:
        return model, present
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.Dropout):
                setattr(parent, name, _ChanceOfAll(child.p, False, present))
            elif isinstance(child, StochasticDepth) and child.mode == "row":
                setattr(parent, name, _ChanceOfAll(child.p, True, present))
    if any(isinstance(module, _BatchNorm) for module in model.modules()):
        if device.type != "cuda":
            what = "has batch normalisation, which several processes share on GPUs alone; on CPUs train it with one"
            raise InvalidInput.one("model", what)
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    return model, present


def joined(model: nn.Module, processes: Processes, device: torch.device) -> nn.Module:
    """The network as training steps call it: after a backward pass all have the mean of their gradients."""
    if processes.count == 1:
        return model
    own = [torch.cuda.current_device()] if device.type == "cuda" else None
    network = DistributedDataParallel(model, device_ids=own, gradient_as_bucket_view=True)
    # Those that change belong to batch normalisation, which all compute alike.
    network.broadcast_buffers = False
    return network


@contextmanager
def gradients_stay(network: nn.Module, processes: Processes, stay: bool) -> Iterator[None]:
    """Within it, if `stay`, gradients are added up by each process for itself."""
    network_alone: Any = network
    with network_alone.no_sync() if stay and processes.count > 1 else nullcontext():
        yield


def infer_together(
    processes: Processes,
    model: nn.Module,
    pixels: np.ndarray,
    positions: np.ndarray,
    batch_size: int,
    compute: Compute,
    progress: Callable[[int], None] | None = None,
) -> np.ndarray:
    """`infer_logits` of `positions`, each process a stretch of them; all get all logits (N, K), in order.

    `batch_size` counts the images of all. `progress` is told how many are done if all are as fast as this one.
    """
    if processes.count == 1:
        return infer_logits(model, pixels, positions, batch_size, compute, progress)
    begin, end = _stretch(len(positions), processes)
    size = -(-batch_size // processes.count)

    def tell(done: int) -> None:
        if progress is not None:
            progress(min(done * processes.count, len(positions)))

    own = infer_logits(model, pixels, positions[begin:end], size, compute, tell)
    width = torch.tensor(own.shape[1])
    dist.all_reduce(width, dist.ReduceOp.MAX)  # one without an image knows of no classes
    everything = torch.zeros(len(positions), int(width))
    if len(own):
        everything[begin:end] = torch.from_numpy(own)
    dist.all_reduce(everything)
    return everything.numpy()
