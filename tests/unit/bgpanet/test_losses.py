"""The Dual-Tailed Loss against its definition."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bgpanet.errors import InvalidInput
from bgpanet.losses import SCHEDULES, DualTailedLoss

DYNAMIC = ("linear", "cosine", "exponential", "step")


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(16, 7, generator=generator, dtype=torch.float64) * 3, torch.arange(16) % 7


def at(t: int, total: int = 100, **options: object) -> DualTailedLoss:
    loss = DualTailedLoss(total, **options)  # type: ignore[arg-type]
    loss.t.fill_(t)
    return loss


def focal(logits: Tensor, targets: Tensor, gamma: float) -> Tensor:
    """From the definition, with probabilities."""
    p = logits.softmax(1)[torch.arange(len(targets)), targets]
    return -((1 - p) ** gamma * p.log()).mean()


@pytest.mark.parametrize("schedule", DYNAMIC)
def test_it_begins_as_cross_entropy_and_ends_as_focal_loss(schedule: str) -> None:
    logits, targets = batch()
    torch.testing.assert_close(at(0, schedule=schedule)(logits, targets), F.cross_entropy(logits, targets))
    torch.testing.assert_close(at(100, schedule=schedule)(logits, targets), focal(logits, targets, 2.0))


def test_it_is_linear_in_t() -> None:
    logits, targets = batch()
    begin, end = F.cross_entropy(logits, targets), focal(logits, targets, 2.0)
    for t in (1, 25, 50, 99):
        torch.testing.assert_close(at(t)(logits, targets), (1 - t / 100) * begin + t / 100 * end)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_at_gamma_0_it_is_cross_entropy_all_the_time(schedule: str) -> None:
    logits, targets = batch()
    for t in (0, 37, 100):
        loss = at(t, gamma=0.0, schedule=schedule)
        torch.testing.assert_close(loss(logits, targets), F.cross_entropy(logits, targets))


@pytest.mark.parametrize(
    ("schedule", "beta"),
    [
        ("linear", [0, 0.25, 0.5, 0.75, 1]),
        ("cosine", [0, (1 - math.sqrt(0.5)) / 2, 0.5, (1 + math.sqrt(0.5)) / 2, 1]),
        ("exponential", [(math.exp(5 * u) - 1) / (math.exp(5) - 1) for u in (0, 0.25, 0.5, 0.75, 1)]),
        ("step", [0, 0.25, 0.5, 0.75, 1]),
        ("fixed_0.4_0.6", [0.6] * 5),
        ("fixed_0.5_0.5", [0.5] * 5),
        ("fixed_0.6_0.4", [0.4] * 5),
        ("ce", [0] * 5),
        ("focal", [1] * 5),
    ],
)
def test_each_schedule_weighs_as_it_is_defined(schedule: str, beta: list[float]) -> None:
    found = [at(t, schedule=schedule).weights() for t in (0, 25, 50, 75, 100)]
    assert [weights[1] for weights in found] == pytest.approx(beta)
    assert [sum(weights) for weights in found] == pytest.approx([1.0] * 5)


def test_the_step_schedule_stands_still_between_its_quarters() -> None:
    assert [at(t, schedule="step").weights()[1] for t in (24, 25, 49, 99, 100)] == [0, 0.25, 0.25, 0.75, 1]


def test_every_schedule_of_the_spec_is_one_of_the_loss() -> None:
    from typing import get_args

    from bgpanet.specs import Schedule

    assert set(get_args(Schedule)) == set(SCHEDULES)


def test_a_resumed_run_goes_on_at_its_t() -> None:
    logits, targets = batch()
    old = DualTailedLoss(10)
    for _ in range(7):
        old.step()
    new = DualTailedLoss(10)
    new.load_state_dict(old.state_dict())
    assert new.weights() == old.weights()
    assert new.weights() == pytest.approx((0.3, 0.7))
    assert torch.equal(new(logits, targets), old(logits, targets))


def test_t_stays_at_the_total() -> None:
    loss = DualTailedLoss(3)
    for _ in range(5):
        loss.step()
    assert (int(loss.t), loss.weights()) == (3, (0.0, 1.0))


@settings(deadline=None, max_examples=60)
@given(
    gamma=st.one_of(st.just(0.0), st.floats(0.01, 8)),
    t=st.integers(0, 10),
    large=st.sampled_from([0.0, 1.0, 30.0, 200.0]),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16]),
)
def test_loss_and_gradient_are_finite_also_where_the_net_is_certain(
    gamma: float, t: int, large: float, dtype: torch.dtype
) -> None:
    logits = torch.full((4, 7), -large, dtype=dtype)
    logits[0, 0] = logits[1, 3] = large  # certain and right, certain and wrong
    logits.requires_grad_()
    loss = at(t, 10, gamma=gamma)(logits, torch.tensor([0, 1, 2, 3]))
    loss.backward()
    assert loss.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_low_precision_logits_are_weighed_in_float32() -> None:
    logits, targets = batch()
    low = logits.to(torch.bfloat16)
    assert at(50)(low, targets).dtype == torch.float32
    torch.testing.assert_close(at(50)(low, targets), at(50)(low.float(), targets))


def test_gradients_are_those_of_finite_differences() -> None:
    logits, targets = batch()
    loss = at(60)
    assert torch.autograd.gradcheck(lambda x: loss(x, targets), logits.requires_grad_())


@pytest.mark.parametrize(
    "options",
    [{"total_steps": 0}, {"gamma": -1.0}, {"gamma": float("nan")}, {"gamma": float("inf")}, {"schedule": "slow"}],
)
def test_arguments_that_make_no_sense_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        DualTailedLoss(**{"total_steps": 10, **options})  # type: ignore[arg-type]
