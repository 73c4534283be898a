"""What a training can be asked to do besides the plain recipe; and that a resumed run keeps all of it."""

import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from bgpanet.compute import Compute
from bgpanet.data.augmentation import mix
from bgpanet.data.batches import balanced_order
from bgpanet.errors import CheckpointError, Interrupted, InvalidInput, NonFiniteLoss, OutOfMemory
from bgpanet.events import Event, Log
from bgpanet.losses import DualTailedLoss
from bgpanet.models import build_model
from bgpanet.models.layers import depths
from bgpanet.models.zoo import BUILDERS, top_of
from bgpanet.specs import AugmentationSpec, TrainingSpec, parse_spec
from bgpanet.training.ema import WeightAverage
from bgpanet.training.fit import fit, validate
from bgpanet.training.optimizer import make_optimizer
from bgpanet.training.step import train_step
from bgpanet.training.task import State, Task

PLAIN = AugmentationSpec(horizontal_flip=0, vertical_flip=0, brightness=0, contrast=0, saturation=0, hue=0)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


def task(model: nn.Module | None = None, precision: Any = "fp32", **training: Any) -> Task:
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    values = {"epochs": 3, "batch_size": 8, "learning_rate": 1e-3, "warmup_epochs": 1, "checkpoint_seconds": 0}
    spec = TrainingSpec(**{**values, **training})
    return Task(
        model=model or build_model("bgpanet_micro", 3),
        loss=DualTailedLoss(9),
        pixels=rng.integers(0, 256, (28, 32, 32, 3), dtype=np.uint8),
        labels=np.arange(28) % 3,
        train=np.arange(20),
        validation=np.arange(20, 28),
        training=spec,
        augmentation=PLAIN,
        compute=Compute(torch.device("cpu"), precision, 1),
        fingerprint="this run",
        top=top_of("bgpanet_micro"),
    )


def step(made: Task, state: State | None = None) -> float:
    return train_step(made, torch.from_numpy(made.pixels[:8]), torch.from_numpy(made.labels[:8]), state or State())


def net() -> nn.Module:
    """A small net without any chance in it."""
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 8), nn.Tanh(), nn.Linear(8, 3))


def silent(event: Event) -> None:
    """Nobody listens."""


def weights(made: Task) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in made.model.state_dict().items()}


def gap(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    return max(float((one[name] - other[name]).abs().max()) for name in one)


# ── Steps ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("size", [1, 3, 4, 8])
def test_a_batch_in_parts_is_the_same_step(size: int) -> None:
    whole, parts = task(net()), task(net(), micro_batch_size=size)
    assert step(parts) == pytest.approx(step(whole), rel=1e-6)
    for one, other in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        assert one.grad is not None
        assert other.grad is not None
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-7)


def test_a_run_that_goes_on_with_half_the_images_at_once_ends_as_it_would_have_but_for_rounding(tmp_path: Path) -> None:
    whole = fit(task(net()), tmp_path / "whole", silent)
    for _ in range(2):  # a second interruption adds nothing
        with pytest.raises(Interrupted):
            fit(task(net()), tmp_path / "halved", silent, stop=lambda: True)
    halved = fit(task(net(), micro_batch_size=4), tmp_path / "halved", silent)
    assert gap(halved.weights, whole.weights) < 1e-4
    assert (whole.state.images_at_once, halved.state.images_at_once) == ([[0, 8]], [[0, 8], [2, 4]])


class Elsewhere(Compute):
    """A CPU that says it is something else."""

    def describe(self) -> dict[str, str | int]:
        return {**super().describe(), "device": "H100"}


@pytest.mark.parametrize("older", [False, True], ids=["", "from a checkpoint of an older version"])
def test_a_run_that_goes_on_on_another_device_tells_of_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, older: bool
) -> None:
    heard: list[Event] = []
    for _ in range(2):  # a second interruption on the same device adds nothing
        with pytest.raises(Interrupted):
            fit(task(net()), tmp_path, heard.append, stop=lambda: True)
    assert not [event for event in heard if isinstance(event, Log) and event.level == "warning"]
    if older:
        monkeypatch.setattr("bgpanet.training.resume.State", lambda **position: State(**position | {"devices": []}))
    moved = task(net())
    moved.compute = Elsewhere(moved.compute.device, moved.compute.precision, moved.compute.threads)
    assert fit(moved, tmp_path, heard.append).state.devices == ["cpu", "H100"]
    (told,) = [event.message for event in heard if isinstance(event, Log) and event.level == "warning"]
    assert told.startswith("cpu then H100: ")


def test_a_checkpoint_of_a_newer_version_is_left_to_that_and_is_no_fault_of_the_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Older workers go on beside newer ones: a job that fails for this is tried again, `internal` never is."""
    with pytest.raises(Interrupted):
        fit(task(net()), tmp_path, silent, stop=lambda: True)
    monkeypatch.setattr("bgpanet.training.resume.State", lambda **position: State(**{**position, "later": 1}))
    with pytest.raises(CheckpointError, match=r"written by a newer version.*later") as caught:
        fit(task(net()), tmp_path, silent)
    assert caught.value.reason == "storage"
    monkeypatch.undo()
    assert fit(task(net()), tmp_path, silent).state.step > 0


def test_validation_has_no_more_images_at_once_than_a_step() -> None:
    sizes: list[int] = []
    made = task(net(), micro_batch_size=3)
    made.model.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    validate(made)
    assert sizes == [3, 3, 2]


def test_the_gradient_is_clipped_to_the_norm() -> None:
    free, clipped = task(net()), task(net(), clip_norm=0.01)
    step(free)
    step(clipped)
    norms = [math.sqrt(sum(float(p.grad.square().sum()) for p in made.model.parameters() if p.grad is not None))
             for made in (free, clipped)]  # fmt: skip
    assert norms[0] > 0.1
    assert norms[1] == pytest.approx(0.01, rel=1e-3)


class InfiniteSlope(torch.autograd.Function):
    """Passes a value on, but no finite gradient."""

    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(context: Any, *gradient: Tensor) -> Tensor:
        return gradient[0] * math.inf


def test_a_gradient_that_is_no_number_stops_before_the_weights_are_touched() -> None:
    made = task(net())
    made.model.register_forward_hook(lambda module, inputs, output: InfiniteSlope.apply(output))
    before = weights(made)
    with pytest.raises(NonFiniteLoss, match="the gradient became"):
        step(made)
    assert gap(weights(made), before) == 0


def test_want_of_memory_is_told_with_the_number_of_images() -> None:
    made = task(net(), micro_batch_size=3)
    made.model.register_forward_hook(lambda module, inputs, output: torch.empty(1 << 60, dtype=torch.uint8))
    with pytest.raises(OutOfMemory, match="3 images at once do not fit"):
        step(made)


def test_fp16_scales_the_loss_and_leaves_out_a_step_that_overflows() -> None:
    made = task(net(), precision="fp16")
    before = weights(made)
    scale = made.scaler.get_scale()
    made.model.register_forward_hook(lambda module, inputs, output: InfiniteSlope.apply(output))
    step(made)
    assert gap(weights(made), before) == 0
    assert made.scaler.get_scale() == scale / 2
    healthy = task(net(), precision="fp16")
    step(healthy)
    assert gap(weights(healthy), before) > 0


def test_fp16_steps_that_all_overflow_are_no_training() -> None:
    made, state = task(net(), precision="fp16", epochs=20), State()
    step(made, state)  # that one did not: nothing is said of it
    made.model.register_forward_hook(lambda module, inputs, output: InfiniteSlope.apply(output))
    for _ in range(36):  # 2^16 halved until it is 2^-20
        step(made, state)
    with pytest.raises(NonFiniteLoss, match="of the last steps up to step 38 were not finite"):
        step(made, state)


@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++"))), reason="compiling for a CPU needs a compiler")
def test_a_compiled_net_takes_the_same_step() -> None:
    torch.use_deterministic_algorithms(False)
    plain, compiled = task(net()), task(net(), compile=True)
    assert step(compiled) == pytest.approx(step(plain), rel=1e-4)
    assert gap(weights(plain), weights(compiled)) < 1e-3


# ── Mixup and balanced sampling ──────────────────────────────────────────────────────────────────────────────────


def test_mixup_mixes_images_and_losses_by_the_same_share() -> None:
    images, labels = torch.rand(8, 3, 4, 4), torch.arange(8) % 3
    mixed, others, share = mix(images, labels, 0.4, 0, 1, 2)
    assert 0 < share < 1
    found = []
    for n in range(8):
        distances = (share * images[n] + (1 - share) * images - mixed[n]).abs().sum((1, 2, 3))
        found.append(int(distances.argmin()))
        assert distances.min() < 1e-4
    assert sorted(found) == list(range(8))
    assert others.tolist() == labels[found].tolist()


def test_mixup_off_changes_nothing_and_on_trains_on_both_labels() -> None:
    images, labels = torch.rand(8, 3, 4, 4), torch.arange(8) % 3
    same, _, share = mix(images, labels, 0, 0, 1, 2)
    assert (torch.equal(same, images), share) == (True, 1.0)
    made = task(net(), mixup_alpha=0.4)
    logits: list[Tensor] = []
    made.model.register_forward_hook(lambda module, inputs, output: logits.append(output.detach()))
    value = step(made)
    _, others, share = mix(torch.zeros(8, 1), torch.from_numpy(made.labels[:8]), 0.4, 0, 0, 0)
    loss = DualTailedLoss(9)
    wanted = share * loss(logits[0], torch.from_numpy(made.labels[:8])) + (1 - share) * loss(logits[0], others)
    assert value == pytest.approx(wanted.item(), rel=1e-6)


def test_balanced_sampling_draws_every_class_as_often() -> None:
    labels = np.array([0] * 900 + [1] * 90 + [2] * 10)
    positions = np.arange(0, 1000, 2)
    drawn = np.concatenate([balanced_order(positions, labels, 0, epoch) for epoch in range(20)])
    assert set(drawn) <= set(positions)
    counts = np.bincount(labels[drawn])
    # 10,000 draws: three standard errors of a third are 1.4 points.
    assert counts / len(drawn) == pytest.approx([1 / 3] * 3, abs=0.015)
    per_image = np.bincount(drawn, minlength=1000)[positions][labels[positions] == 2]
    assert per_image.min() > 500
    assert np.array_equal(balanced_order(positions, labels, 0, 3), balanced_order(positions, labels, 0, 3))
    assert not np.array_equal(balanced_order(positions, labels, 0, 3), balanced_order(positions, labels, 0, 4))


# ── Weight average ───────────────────────────────────────────────────────────────────────────────────────────────


def test_the_average_is_its_recursion_and_leaves_the_weights_alone() -> None:
    model = net()
    average = WeightAverage(model, 0.5)
    wanted = {name: value.clone() for name, value in model.state_dict().items()}
    for number in range(1, 6):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(number)
        average.update(model, number)
        decay = min(0.5, (1 + number) / (10 + number))
        wanted = {name: decay * value + (1 - decay) * model.state_dict()[name] for name, value in wanted.items()}
    own = {name: value.clone() for name, value in model.state_dict().items()}
    with average.applied(model):
        for name, value in model.state_dict().items():
            torch.testing.assert_close(value, wanted[name])
    assert all(torch.equal(value, own[name]) for name, value in model.state_dict().items())


def test_with_an_average_it_is_the_average_that_is_validated_and_kept(tmp_path: Path) -> None:
    made = task(ema_decay=0.9, epochs=1, warmup_epochs=0)
    fitted = fit(made, tmp_path, silent)
    assert made.average is not None
    assert all(torch.equal(fitted.weights[name], value) for name, value in made.average.tensors.items())
    assert gap(fitted.weights, weights(made)) > 0


# ── Layers ───────────────────────────────────────────────────────────────────────────────────────────────────────

LAYERS = {"swin_micro": 5, "swin_b": 24, "resnet101": 33, "vit_b_16": 12, "vgg16": 13, "convnext_base": 36,
          "densenet121": 58}  # fmt: skip


@pytest.mark.parametrize("name", BUILDERS)
def test_depths_run_from_the_stem_to_the_top(name: str) -> None:
    with torch.device("meta"):
        model = build_model(name, 3)
    found = depths(model, top_of(name))
    assert list(found) == [parameter for parameter, _ in model.named_parameters()]
    top = max(found.values())
    assert sorted(set(found.values()))[-1] == top
    assert min(found.values()) <= 1
    for parameter, depth in found.items():
        assert parameter.startswith(top_of(name)) <= (depth == top), parameter
    backbone = [depth for parameter, depth in found.items() if not parameter.startswith(top_of(name))]
    assert backbone == sorted(backbone)
    if name in LAYERS:
        assert top >= LAYERS[name]


def test_each_layer_has_its_share_of_the_rate() -> None:
    made = task(layer_decay=0.5)
    step(made)
    names = {id(parameter): name for name, parameter in made.model.named_parameters()}
    top = max(made.depths.values())
    for group in made.optimizer.param_groups:
        for parameter in group["params"]:
            assert group["lr"] == made.rate(0) * 0.5 ** (top - made.depths[names[id(parameter)]])
    assert sum(len(group["params"]) for group in made.optimizer.param_groups) == len(names)


def test_without_decay_all_parameters_are_one_group() -> None:
    model = net()
    assert len(make_optimizer(model, TrainingSpec(), depths(model, ("3",))).param_groups) == 1


def test_a_frozen_backbone_rests_and_thaws() -> None:
    made, state = task(freeze_epochs=1), State()
    before = weights(made)
    for _ in range(3):
        step(made, state)
    top = max(made.depths.values())
    for name, value in weights(made).items():
        if name in made.depths:
            assert torch.equal(value, before[name]) is (made.depths[name] < top), name
    step(made, state)
    assert not torch.equal(made.model.state_dict()["features.0.0.weight"], before["features.0.0.weight"])


# ── All at once ──────────────────────────────────────────────────────────────────────────────────────────────────

EVERYTHING: dict[str, Any] = {
    "micro_batch_size": 3, "clip_norm": 1.0, "ema_decay": 0.9, "sampling": "balanced", "freeze_epochs": 0.5,
    "layer_decay": 0.8, "mixup_alpha": 0.2,
}  # fmt: skip


class Killed(BaseException):
    """A death."""


@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(deaths=st.lists(st.integers(1, 30), min_size=1, max_size=2), precision=st.sampled_from(["fp32", "bf16", "fp16"]))
def test_a_run_with_everything_on_that_dies_anywhere_ends_with_the_same_bits(
    deaths: list[int], precision: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    whole = fit(task(precision=precision, **EVERYTHING), tmp_path_factory.mktemp("whole"), silent)
    folder = tmp_path_factory.mktemp("killed")
    for events in deaths:
        left = events

        def report(event: Event) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed

        try:
            fit(task(precision=precision, **EVERYTHING), folder, report)
        except Killed:
            continue
    again = fit(task(precision=precision, **EVERYTHING), folder, silent)
    assert again.state == whole.state
    assert all(torch.equal(again.weights[name], value) for name, value in whole.weights.items())


def test_what_makes_no_sense_together_is_refused_at_once() -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_spec("train", {"training": {"epochs": 2, "freeze_epochs": 3, "batch_size": 4, "micro_batch_size": 8,
                                          "warmup_epochs": 2}})  # fmt: skip
    for part in ("freeze_epochs 3 must not exceed", "micro_batch_size 8 must not exceed", "warmup_epochs 2 must be"):
        assert part in str(caught.value)
