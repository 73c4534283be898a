"""What is fitted to what, and where a run stands."""

import math
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import nn

from bgpanet.compute import Compute
from bgpanet.losses import Loss
from bgpanet.models.layers import depths
from bgpanet.specs import AugmentationSpec, TrainingSpec
from bgpanet.training.distributed import ALONE, Processes, adapt, joined
from bgpanet.training.ema import WeightAverage
from bgpanet.training.history import Curves
from bgpanet.training.optimizer import make_optimizer
from bgpanet.training.schedule import learning_rate


@dataclass
class Task:
    """What is fitted to what.

    pixels: uint8 (N, S, S, 3); labels: int64 (N,); train, validation: positions into both.
    fingerprint: identifies spec and data; a checkpoint of another one is refused.
    top: beginnings of the names of what was not pretrained; it is never frozen and has the full rate.
    processes: with whom this process trains; each of them has the same task.
    """

    model: nn.Module
    loss: Loss
    pixels: np.ndarray
    labels: np.ndarray
    train: np.ndarray
    validation: np.ndarray
    training: TrainingSpec
    augmentation: AugmentationSpec
    compute: Compute
    fingerprint: str
    top: tuple[str, ...] = ("head",)
    processes: Processes = ALONE

    def __post_init__(self) -> None:
        model = self.model.to(memory_format=torch.channels_last)
        self.model, self.present = adapt(model, self.processes, self.compute.device)
        self.depths = depths(self.model, self.top)
        self.optimizer = make_optimizer(self.model, self.training, self.depths)
        self.scaler = torch.amp.GradScaler(self.compute.device.type, enabled=self.compute.precision == "fp16")
        decay = self.training.ema_decay
        self.average = None if decay is None else WeightAverage(self.model, decay)

    @cached_property
    def forward(self) -> nn.Module:
        """The network as training steps call it: joined to the others', and compiled where that was asked for."""
        network = joined(self.model, self.processes, self.compute.device)
        return torch.compile(network) if self.training.compile else network  # type: ignore[return-value]

    @property
    def steps_per_epoch(self) -> int:
        return steps_per_epoch(len(self.train), self.training)

    @property
    def total_steps(self) -> int:
        return self.steps_per_epoch * self.training.epochs

    def rate(self, step: int) -> float:
        """The learning rate of optimizer step `step`, from 0."""
        warmup = min(round(self.training.warmup * self.steps_per_epoch), self.total_steps - 1)
        return learning_rate(
            step, self.total_steps, warmup, self.training.learning_rate, self.training.minimum_learning_rate
        )

    def is_frozen(self, step: int) -> bool:
        """Whether the pretrained part rests at optimizer step `step`, from 0."""
        return step < self.training.freeze_epochs * self.steps_per_epoch


@dataclass
class State:
    """Where a run stands; plain numbers, kept in every checkpoint."""

    step: int = 0  # optimizer steps done
    epoch: int = 0  # epochs finished, validation included
    step_of_epoch: int = 0
    loss_sum: float = 0.0  # over the images of this epoch
    images_seen: int = 0  # of this epoch
    best_value: float | None = None  # of the monitor; larger is better
    best_step: int = 0
    best_epoch: int = 0
    best_loss_weight_focal: float | None = None  # beta of the Dual-Tailed Loss
    epochs_without_improvement: int = 0
    stopped_early: bool = False
    images_at_once: list[list[int]] = field(default_factory=list)  # [after which step, how many], one for each change
    processes: list[int] = field(default_factory=lambda: [1])  # how many train; one more entry for each change
    devices: list[str] = field(default_factory=list)  # what computed, one more entry for each change
    curves: Curves = field(default_factory=dict)  # for the report; nothing is computed from them


def steps_per_epoch(images: int, training: TrainingSpec) -> int:
    """Optimizer steps of an epoch; the last batch may be smaller."""
    return math.ceil(images / training.batch_size)
