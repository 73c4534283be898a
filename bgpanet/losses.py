"""Losses, each with its paper and equation, behind one registry, `LOSSES`.

Notation: z logits (B, K), y the true class, p = softmax(z), n_k training images of class k, N of all. All are computed
in float32 or wider, in nats. What is added to logits is for training alone: prediction uses z as it is.
"""

import math
from collections.abc import Callable, Sequence
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bgpanet.errors import InvalidInput
from bgpanet.specs import LossSpec

FIXED = {"ce": 0.0, "focal": 1.0, "fixed_0.4_0.6": 0.6, "fixed_0.5_0.5": 0.5, "fixed_0.6_0.4": 0.4}
SCHEDULES = ("linear", "cosine", "exponential", "step", *FIXED)
EXPONENT = 5.0
STEPS = 4


class Loss(nn.Module):
    """What every loss here has: t, the optimizer steps done, of T = `total_steps`.

    t is a buffer, so a resumed run goes on at its t, and it stays at T.
    """

    t: Tensor

    def __init__(self, total_steps: int) -> None:
        super().__init__()
        if total_steps < 1:
            raise InvalidInput.one("total_steps", f"must be 1 or more, not {total_steps}")
        self.total_steps = total_steps
        self.register_buffer("t", torch.zeros((), dtype=torch.int64))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # t stays with the CPU, which counts: read from a GPU it would be waited for in the middle of every step.
        t = self.t
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.t = t
        return self

    def step(self) -> None:
        """Counts one optimizer step."""
        self.t.add_(1).clamp_(max=self.total_steps)

    def amount(self, targets: Tensor) -> float:
        """What the mean over images of these classes is divided by. By it the means of parts add up to that of all."""
        return float(len(targets))

    @property
    def done(self) -> float:
        """u = t / T, from 0 to 1."""
        return min(int(self.t), self.total_steps) / self.total_steps

    def curves(self) -> dict[str, float]:
        """What of the loss changes while training goes on, for people to see."""
        return {}


class DualTailedLoss(Loss):
    """L(t) = (1 - beta) CE + beta FL, beta a function of u = t / T; the mean over images.

    CE = -log p_y and FL = -(1 - p_y)^gamma log p_y (Lin et al., ICCV 2017). No class weights. Source: Liu et al.,
    Expert Systems With Applications 321 (2026) 132169.

    linear       beta = u
    cosine       beta = (1 - cos(pi u)) / 2
    exponential  beta = (e^(5u) - 1) / (e^5 - 1)
    step         beta = floor(4u) / 4
    fixed_A_B    beta = B; `ce`: beta = 0; `focal`: beta = 1

    Raises:
        InvalidInput: when an argument makes no sense.
    """

    def __init__(self, total_steps: int, gamma: float = 2.0, schedule: str = "linear") -> None:
        super().__init__(total_steps)
        if not (gamma >= 0 and math.isfinite(gamma)):
            raise InvalidInput.one("gamma", f"must be 0 or more, not {gamma}")
        if schedule not in SCHEDULES:
            raise InvalidInput.one("schedule", f"unknown: {schedule!r}; known: {', '.join(SCHEDULES)}")
        self.gamma, self.schedule = gamma, schedule

    def weights(self) -> tuple[float, float]:
        """(alpha, beta): the weights of cross-entropy and focal loss at the present t; their sum is 1."""
        beta = self._beta(self.done)
        return 1.0 - beta, beta

    def curves(self) -> dict[str, float]:
        """The two weights."""
        alpha, beta = self.weights()
        return {"loss_weight_ce": alpha, "loss_weight_focal": beta}

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss of logits (B, K) and class indices (B,), computed in float32 or wider."""
        cross_entropy = F.cross_entropy(_wide(logits), targets, reduction="none")
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


class WeightedCrossEntropy(Loss):
    """sum_i w_y CE_i / sum_i w_y over the batch, w_k = N / (K n_k): classes weigh the same, however rare."""

    weight: Tensor

    def __init__(self, total_steps: int, class_counts: Sequence[int]) -> None:
        super().__init__(total_steps)
        counts = _counts(class_counts)
        self.register_buffer("weight", counts.sum() / (len(counts) * counts))

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss of logits (B, K) and class indices (B,)."""
        wide = _wide(logits)
        return F.cross_entropy(wide, targets, self.weight.to(wide.dtype))

    def amount(self, targets: Tensor) -> float:
        """The sum of the images' weights."""
        return float(self.weight[targets].sum())


class ClassBalancedLoss(Loss):
    """mean_i w_y CE_i, w_k = (1 - beta) / (1 - beta^n_k), scaled so that the K weights sum to K: n_k counts as the
    effective number of different images (Cui et al., CVPR 2019)."""

    weight: Tensor

    def __init__(self, total_steps: int, class_counts: Sequence[int], beta: float = 0.9999) -> None:
        super().__init__(total_steps)
        if not 0 <= beta < 1:
            raise InvalidInput.one("beta", f"must be from 0 to below 1, not {beta}")
        self.register_buffer("weight", effective_number_weights(class_counts, beta))

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss of logits (B, K) and class indices (B,)."""
        wide = _wide(logits)
        return (self.weight.to(wide.dtype)[targets] * F.cross_entropy(wide, targets, reduction="none")).mean()


class LDAMLoss(Loss):
    """Label-distribution-aware margins, with deferred re-weighting (Cao et al., NeurIPS 2019).

    CE of z with z_y lowered by the margin of its class, C / n_y^(1/4), C so that the largest margin is `max_margin`.
    From u = `reweight_from` on, images are weighed as in `ClassBalancedLoss`. The paper's equations know no scale of
    the logits; its code has one because its classifier is normalised, which the classifiers here are not.
    """

    margins: Tensor
    weight: Tensor

    def __init__(
        self,
        total_steps: int,
        class_counts: Sequence[int],
        max_margin: float = 0.5,
        beta: float = 0.9999,
        reweight_from: float = 0.8,
    ) -> None:
        super().__init__(total_steps)
        if not (max_margin >= 0 and math.isfinite(max_margin)):
            raise InvalidInput.one("max_margin", f"must be 0 or more, not {max_margin}")
        relative = _counts(class_counts) ** -0.25
        self.reweight_from = reweight_from
        self.register_buffer("margins", max_margin * relative / relative.max())
        self.register_buffer("weight", effective_number_weights(class_counts, beta))

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss of logits (B, K) and class indices (B,)."""
        wide = _wide(logits)
        margins = F.one_hot(targets, wide.shape[1]) * self.margins.to(wide.dtype)
        losses = F.cross_entropy(wide - margins, targets, reduction="none")
        return (losses * self.weight.to(wide.dtype)[targets] if self.done >= self.reweight_from else losses).mean()


class LogitAdjustedLoss(Loss):
    """CE of z + tau log(n / N) (Menon et al., ICLR 2021): learns what lies beyond the frequency of the classes.

    At tau = 1 this is the balanced softmax (Ren et al., NeurIPS 2020), p_k = n_k e^(z_k) / sum_j n_j e^(z_j).
    """

    shift: Tensor

    def __init__(self, total_steps: int, class_counts: Sequence[int], tau: float = 1.0) -> None:
        super().__init__(total_steps)
        counts = _counts(class_counts)
        self.register_buffer("shift", tau * (counts / counts.sum()).log())

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss of logits (B, K) and class indices (B,)."""
        wide = _wide(logits)
        return F.cross_entropy(wide + self.shift.to(wide.dtype), targets)


def effective_number_weights(class_counts: Sequence[int], beta: float) -> Tensor:
    """(K,) float64: (1 - beta) / (1 - beta^n_k), scaled so that they sum to K."""
    counts = _counts(class_counts)
    # beta^n by its logarithm: 1 - beta^n keeps its digits where beta is near 1.
    effective = -torch.expm1(counts * math.log(beta)) if beta > 0 else torch.ones_like(counts)
    weights = effective.reciprocal()
    return weights * len(counts) / weights.sum()


def _counts(class_counts: Sequence[int]) -> Tensor:
    empty = [k for k, count in enumerate(class_counts) if count < 1]
    if empty or len(class_counts) < 2:
        raise InvalidInput.one("class_counts", f"two classes and an image of each are needed; classes without: {empty}")
    return torch.tensor(class_counts, dtype=torch.float64)


def _wide(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()


LOSSES: dict[str, Callable[[LossSpec, int, Sequence[int]], Loss]] = {
    "dual_tailed": lambda spec, steps, counts: DualTailedLoss(steps, spec.gamma, spec.schedule),
    "weighted_ce": lambda spec, steps, counts: WeightedCrossEntropy(steps, counts),
    "class_balanced": lambda spec, steps, counts: ClassBalancedLoss(steps, counts, spec.beta),
    "ldam_drw": lambda spec, steps, counts: LDAMLoss(steps, counts, spec.max_margin, spec.beta, spec.reweight_from),
    "balanced_softmax": lambda spec, steps, counts: LogitAdjustedLoss(steps, counts),
    "logit_adjusted": lambda spec, steps, counts: LogitAdjustedLoss(steps, counts, spec.tau),
}
"""Name: how it is made from its spec, the steps of the run, and the training images of each class."""


def build_loss(spec: LossSpec, total_steps: int, class_counts: Sequence[int]) -> Loss:
    """The loss of a spec. Raises InvalidInput."""
    return LOSSES[spec.name](spec, total_steps, class_counts)
