"""Every loss against its definition."""

import math
from collections.abc import Callable, Sequence
from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bgpanet.errors import InvalidInput
from bgpanet.losses import (
    LOSSES,
    SCHEDULES,
    ClassBalancedLoss,
    DualTailedLoss,
    LDAMLoss,
    LogitAdjustedLoss,
    Loss,
    WeightedCrossEntropy,
    build_loss,
    effective_number_weights,
)
from bgpanet.specs import LOSS_OPTIONS, LossName, LossSpec, Schedule, parse_spec

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


@pytest.mark.parametrize("name", get_args(LossName))
def test_the_cpu_counts_wherever_the_loss_lies(name: LossName) -> None:
    """Reading t from a GPU would wait for the forward pass, and hold the backward pass back, in every step."""
    made = build_loss(LossSpec(name=name), 10, [3, 4]).to("meta")
    made.step()
    assert made.t.device.type == "cpu"
    assert made.done == 0.1
    weights = {key: value.device.type for key, value in made.named_buffers() if key != "t"}
    assert set(weights.values()) <= {"meta"}


def test_t_stays_at_the_total() -> None:
    loss = DualTailedLoss(3)
    for _ in range(5):
        loss.step()
    assert (int(loss.t), loss.weights()) == (3, (0.0, 1.0))


@settings(max_examples=60)
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


# ── The other losses ─────────────────────────────────────────────────────────────────────────────────────────────

COUNTS = [300, 500, 1100, 115, 1100, 6700, 142]
OTHERS: dict[str, Callable[[Sequence[int]], Loss]] = {
    "weighted_ce": lambda counts: WeightedCrossEntropy(10, counts),
    "class_balanced": lambda counts: ClassBalancedLoss(10, counts),
    "ldam_drw": lambda counts: LDAMLoss(10, counts),
    "balanced_softmax": lambda counts: LogitAdjustedLoss(10, counts),
}


def naive(logits: Tensor, targets: Tensor, row: Callable[[Tensor, int], tuple[float, float]]) -> tuple[float, float]:
    """Sums over images of (weight, weighted loss), one image after the other."""
    found = [row(z, int(y)) for z, y in zip(logits, targets, strict=True)]
    return sum(weight for weight, _ in found), sum(weight * loss for weight, loss in found)


def ce(z: Tensor, y: int) -> float:
    return -math.log(math.exp(z[y].item()) / sum(math.exp(v.item()) for v in z))


def test_weighted_cross_entropy_is_its_definition() -> None:
    logits, targets = batch()
    total = sum(COUNTS)
    weight, loss = naive(logits, targets, lambda z, y: (total / (7 * COUNTS[y]), ce(z, y)))
    assert WeightedCrossEntropy(10, COUNTS)(logits, targets).item() == pytest.approx(loss / weight, rel=1e-12)


@pytest.mark.parametrize("beta", [0.0, 0.9, 0.9999])
def test_class_balanced_loss_is_its_definition(beta: float) -> None:
    logits, targets = batch()
    weights = [(1 - beta) / (1 - beta**n) for n in COUNTS]
    scale = 7 / sum(weights)
    _, loss = naive(logits, targets, lambda z, y: (scale * weights[y], ce(z, y)))
    assert ClassBalancedLoss(10, COUNTS, beta)(logits, targets).item() == pytest.approx(loss / 16, rel=1e-9)


def test_ldam_is_its_definition_and_weighs_classes_late() -> None:
    logits, targets = batch()
    largest = min(COUNTS) ** -0.25
    margins = [0.5 * n**-0.25 / largest for n in COUNTS]

    def lowered(z: Tensor, y: int) -> float:
        z = z.clone()
        z[y] -= margins[y]
        return ce(z, y)

    loss = LDAMLoss(10, COUNTS)
    plain, late = [naive(logits, targets, lambda z, y, w=w: (w[y], lowered(z, y)))[1] / 16  # type: ignore[misc]
                   for w in ([1.0] * 7, effective_number_weights(COUNTS, 0.9999).tolist())]  # fmt: skip
    for step in range(11):
        assert loss(logits, targets).item() == pytest.approx(plain if step < 8 else late, rel=1e-9), step
        loss.step()


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0])
def test_logit_adjustment_is_its_definition_and_the_balanced_softmax_at_tau_1(tau: float) -> None:
    logits, targets = batch()

    def adjusted(z: Tensor, y: int) -> float:
        shares = [n**tau * math.exp(v.item()) for n, v in zip(COUNTS, z, strict=True)]
        return -math.log(shares[y] / sum(shares))

    _, loss = naive(logits, targets, lambda z, y: (1.0, adjusted(z, y)))
    assert LogitAdjustedLoss(10, COUNTS, tau)(logits, targets).item() == pytest.approx(loss / 16, rel=1e-9)


@pytest.mark.parametrize("make", [OTHERS[n] for n in ("weighted_ce", "class_balanced", "balanced_softmax")])
def test_where_all_classes_are_equally_frequent_nothing_is_adjusted(make: Callable[[Sequence[int]], Loss]) -> None:
    logits, targets = batch()
    made = make([50] * 7)
    plain = F.cross_entropy(logits, targets)
    torch.testing.assert_close(made(logits, targets), plain)


@pytest.mark.parametrize("name", LOSSES)
def test_parts_of_a_batch_add_up_to_its_loss_by_their_amounts(name: LossName) -> None:
    logits, targets = batch()
    loss = build_loss(LossSpec(name=name), 10, COUNTS)
    parts = [slice(0, 3), slice(3, 4), slice(4, 16)]
    amounts = [loss.amount(targets[part]) for part in parts]
    assert sum(amounts) == pytest.approx(loss.amount(targets))
    added = sum(loss(logits[part], targets[part]) * amount for part, amount in zip(parts, amounts, strict=True))
    torch.testing.assert_close(added / loss.amount(targets), loss(logits, targets))


@pytest.mark.parametrize("name", OTHERS)
def test_gradients_of_all_losses_are_right_and_finite(name: str) -> None:
    logits, targets = batch()
    loss = OTHERS[name](COUNTS)
    assert torch.autograd.gradcheck(lambda x: loss(x, targets), logits.clone().requires_grad_())
    certain = torch.full((4, 7), -200.0)
    certain[0, 0] = certain[1, 3] = 200.0
    certain.requires_grad_()
    value = loss(certain, torch.tensor([0, 1, 2, 3]))
    value.backward()
    assert value.isfinite()
    assert certain.grad is not None
    assert certain.grad.isfinite().all()


@pytest.mark.parametrize("name", OTHERS)
def test_a_class_without_images_is_refused_where_counts_matter(name: str) -> None:
    with pytest.raises(InvalidInput, match=r"classes without: \[1\]"):
        OTHERS[name]([5, 0, 3])


def test_every_loss_of_the_spec_is_built_and_every_option_is_used() -> None:
    assert set(LOSSES) == set(get_args(LossName)) == set(LOSS_OPTIONS)
    logits, targets = batch()
    changes: dict[str, Any] = {
        "schedule": "ce", "gamma": 1.0, "beta": 0.5, "max_margin": 2.0, "reweight_from": 0.0, "tau": 0.3,
    }  # fmt: skip
    for name, options in LOSS_OPTIONS.items():
        for option in options:
            found = []
            for values in ({"name": name}, {"name": name, option: changes[option]}):
                made = build_loss(LossSpec.model_validate(values), 10, COUNTS)
                made.t.fill_(5 if option == "reweight_from" else 10)
                found.append(made(logits, targets).item())
            assert found[0] != found[1], (name, option)


def test_a_loss_may_be_named_alone_and_refuses_options_of_others() -> None:
    def loss(value: object) -> LossSpec:
        return parse_spec("train", {"model": "bgpanet_micro", "loss": value}).loss  # type: ignore[union-attr]

    assert loss("focal") == LossSpec(schedule="focal")
    assert loss("ldam_drw") == LossSpec(name="ldam_drw")
    assert LossSpec(**loss("weighted_ce").model_dump()) == loss("weighted_ce")
    with pytest.raises(InvalidInput, match="gamma, schedule: no option of the loss weighted_ce"):
        loss({"name": "weighted_ce", "schedule": "ce", "gamma": 1.0})
