"""The Dual-Tailed Loss: from cross-entropy to focal loss while training goes on.

Source: Liu et al., Expert Systems With Applications 321 (2026) 132169; focal loss: Lin et al., ICCV 2017.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bgpanet.errors import InvalidInput

FIXED = {"ce": 0.0, "focal": 1.0, "fixed_0.4_0.6": 0.6, "fixed_0.5_0.5": 0.5, "fixed_0.6_0.4": 0.4}
SCHEDULES = ("linear", "cosine", "exponential", "step", *FIXED)
EXPONENT = 5.0
STEPS = 4


class DualTailedLoss(nn.Module):
    """L(t) = (1 - beta) CE + beta FL, beta a function of u = t / T; the mean over images, in nats.

    CE = -log p and FL = -(1 - p)^gamma log p, p the probability of the true class. No class weights. t counts
    optimizer steps (`step`), T is `total_steps`; t is a buffer, so a resumed run goes on at its t, and it stays at T.

    linear       beta = u
    cosine       beta = (1 - cos(pi u)) / 2
    exponential  beta = (e^(5u) - 1) / (e^5 - 1)
    step         beta = floor(4u) / 4
    fixed_A_B    beta = B; `ce`: beta = 0; `focal`: beta = 1

    Raises:
        InvalidInput: when an argument makes no sense.
    """

    t: Tensor

    def __init__(self, total_steps: int, gamma: float = 2.0, schedule: str = "linear") -> None:
        super().__init__()
        if total_steps < 1:
            raise InvalidInput.one("total_steps", f"must be 1 or more, not {total_steps}")
        if not (gamma >= 0 and math.isfinite(gamma)):
            raise InvalidInput.one("gamma", f"must be 0 or more, not {gamma}")
        if schedule not in SCHEDULES:
            raise InvalidInput.one("schedule", f"unknown: {schedule!r}; known: {', '.join(SCHEDULES)}")
        self.total_steps, self.gamma, self.schedule = total_steps, gamma, schedule
        self.register_buffer("t", torch.zeros((), dtype=torch.int64))

    def step(self) -> None:
        """Counts one optimizer step."""
        self.t.add_(1).clamp_(max=self.total_steps)

    def weights(self) -> tuple[float, float]:
        """(alpha, beta): the weights of cross-entropy and focal loss at the present t; their sum is 1."""
        beta = self._beta(min(int(self.t), self.total_steps) / self.total_steps)
        return 1.0 - beta, beta

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss of logits (B, K) and class indices (B,), computed in float32 or wider."""
        wide = logits if logits.dtype == torch.float64 else logits.float()
        cross_entropy = F.cross_entropy(wide, targets, reduction="none")
        alpha, beta = self.weights()
        if beta == 0.0:
            return cross_entropy.mean()
        return (cross_entropy * (alpha + beta * self._modulation(cross_entropy))).mean()

    def _modulation(self, cross_entropy: Tensor) -> Tensor:
        """(1 - p)^gamma out of CE = -log p, with a finite gradient everywhere.

        1 - p = -expm1(-CE) keeps its digits near p = 1. For gamma < 1 its power has an infinite slope at 0, where the
        term itself is 0 times CE = 0: a floor below the smallest normal step of a float keeps the gradient finite.
        """
        if self.gamma == 0:
            return torch.ones_like(cross_entropy)
        floor = torch.finfo(cross_entropy.dtype).eps ** 2
        return (-torch.expm1(-cross_entropy)).clamp(min=floor) ** self.gamma

    def _beta(self, u: float) -> float:
        match self.schedule:
            case "linear":
                return u
            case "cosine":
                return (1 - math.cos(math.pi * u)) / 2
            case "exponential":
                return math.expm1(EXPONENT * u) / math.expm1(EXPONENT)
            case "step":
                return math.floor(STEPS * u) / STEPS
            case _:
                return FIXED[self.schedule]
