"""The training loop: the same bits wherever it is interrupted, honest validation, no update by a broken loss."""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from threading import Event as Gate
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from bgpanet.compute import Compute
from bgpanet.errors import CheckpointError, Interrupted, NonFiniteLoss
from bgpanet.events import CheckpointWritten, Event, Log, Metrics, Progress, Started
from bgpanet.inference import cross_entropy, infer_logits
from bgpanet.losses import DualTailedLoss
from bgpanet.models import build_model
from bgpanet.specs import AugmentationSpec, TrainingSpec
from bgpanet.training.checkpoints import list_checkpoints, load_checkpoint
from bgpanet.training.fit import Fitted, fit, validate
from bgpanet.training.step import train_step
from bgpanet.training.task import State, Task

SIZE, TRAIN, VALIDATION = 32, 20, 8
EPOCHS, BATCH = 4, 8
STEPS_PER_EPOCH = 3
STEPS = EPOCHS * STEPS_PER_EPOCH


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


def spec(**changes: Any) -> TrainingSpec:
    values = {"epochs": EPOCHS, "batch_size": BATCH, "learning_rate": 1e-3, "checkpoint_seconds": 0, **changes}
    return TrainingSpec(**{"warmup_epochs": 1, **values})


def task(model: nn.Module | None = None, **changes: Any) -> Task:
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    training = spec(**changes)
    return Task(
        model=model or build_model("bgpanet_micro", 3),
        loss=DualTailedLoss(STEPS_PER_EPOCH * training.epochs),
        pixels=rng.integers(0, 256, (TRAIN + VALIDATION, SIZE, SIZE, 3), dtype=np.uint8),
        labels=np.arange(TRAIN + VALIDATION) % 3,
        train=np.arange(TRAIN),
        validation=np.arange(TRAIN, TRAIN + VALIDATION),
        training=training,
        augmentation=AugmentationSpec(),
        compute=Compute(torch.device("cpu"), "fp32", 1),
        fingerprint="this run",
    )


class Said(list[Event]):
    """A report that keeps what it is told."""

    def __call__(self, event: Event) -> None:
        self.append(event)

    def metrics(self) -> dict[tuple[int, str], float]:
        """The last value of each figure at each step, as a reader sees them after resumptions."""
        found: dict[tuple[int, str], float] = {}
        for event in self:
            if isinstance(event, Started):
                found = {key: value for key, value in found.items() if key[0] <= event.step}
            elif isinstance(event, Metrics):
                found |= {(event.step, name): value for name, value in event.values.items()}
        return found


class AfterCalls:
    """True from the n-th question on."""

    def __init__(self, calls: int) -> None:
        self.left = calls

    def __call__(self) -> bool:
        self.left -= 1
        return self.left <= 0


def equal(one: Fitted, other: Fitted) -> bool:
    return one.state == other.state and all(torch.equal(one.weights[name], other.weights[name]) for name in one.weights)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Fitted, dict[tuple[int, str], float]]:
    said = Said()
    return fit(task(), tmp_path_factory.mktemp("whole"), said), said.metrics()


# ── The same bits ────────────────────────────────────────────────────────────────────────────────────────────────


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stops=st.lists(st.integers(1, STEPS), max_size=4))
def test_a_run_that_is_stopped_anywhere_ends_with_the_same_bits_and_curves(
    stops: list[int],
    undisturbed: tuple[Fitted, dict[tuple[int, str], float]],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder, said = tmp_path_factory.mktemp("stopped"), Said()
    for steps in stops:
        try:
            fit(task(checkpoint_seconds=1000), folder, said, AfterCalls(steps))
        except Interrupted:
            continue
    fitted = fit(task(), folder, said)
    assert equal(fitted, undisturbed[0])
    assert said.metrics() == undisturbed[1]


class Killed(BaseException):
    """Stands for a death: nothing of the run's own code can catch it."""


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(deaths=st.lists(st.integers(1, 40), min_size=1, max_size=3))
def test_a_run_that_dies_anywhere_ends_with_the_same_bits_and_curves(
    deaths: list[int],
    undisturbed: tuple[Fitted, dict[tuple[int, str], float]],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """It dies while it says its n-th event: between a step and its checkpoint, after it, or after a validation."""
    folder, said = tmp_path_factory.mktemp("killed"), Said()
    for events in deaths:
        last = len(said) + events

        def report(event: Event, last: int = last) -> None:
            if len(said) >= last:
                raise Killed
            said(event)

        try:
            fit(task(), folder, report)
        except Killed:
            continue
    assert equal(fit(task(), folder, said), undisturbed[0])
    assert said.metrics() == undisturbed[1]


def test_with_the_newest_checkpoint_damaged_it_goes_on_from_the_one_before(
    undisturbed: tuple[Fitted, dict[tuple[int, str], float]], tmp_path: Path
) -> None:
    with pytest.raises(Interrupted):
        fit(task(), tmp_path, Said(), AfterCalls(7))
    (list_checkpoints(tmp_path)[-1] / "model.safetensors").write_bytes(b"damaged")
    said = Said()
    assert equal(fit(task(), tmp_path, said), undisturbed[0])
    assert [event.step for event in said if isinstance(event, Started)] == [6]
    warnings = [event.message for event in said if isinstance(event, Log) and event.level == "warning"]
    assert "does not match" in warnings[0]


def test_a_finished_run_is_not_trained_again(
    undisturbed: tuple[Fitted, dict[tuple[int, str], float]], tmp_path: Path
) -> None:
    fit(task(), tmp_path, Said())
    said = Said()
    assert equal(fit(task(), tmp_path, said), undisturbed[0])
    assert not [event for event in said if isinstance(event, Metrics)]


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    fit(task(), tmp_path, Said())
    with pytest.raises(CheckpointError, match="belongs to another run"):
        fit(replace(task(), fingerprint="another run"), tmp_path, Said())


def test_another_seed_gives_other_weights(
    undisturbed: tuple[Fitted, dict[tuple[int, str], float]], tmp_path: Path
) -> None:
    assert not equal(fit(task(seed=1), tmp_path, Said()), undisturbed[0])


# ── What is said ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_curves_have_every_step_and_epoch_and_the_weights_of_the_loss_add_up(
    undisturbed: tuple[Fitted, dict[tuple[int, str], float]],
) -> None:
    curves = undisturbed[1]
    assert sorted(step for step, name in curves if name == "train_loss") == list(range(1, STEPS + 1))
    epochs = [STEPS_PER_EPOCH * n for n in range(1, EPOCHS + 1)]
    for name in ("validation_loss", "validation_balanced_accuracy", "validation_accuracy", "train_loss_of_epoch"):
        assert sorted(step for step, found in curves if found == name) == epochs
    for step in range(1, STEPS + 1):
        assert curves[step, "loss_weight_ce"] + curves[step, "loss_weight_focal"] == pytest.approx(1)
        assert curves[step, "loss_weight_focal"] == pytest.approx(step / STEPS)
    rates = [curves[step, "learning_rate"] for step in range(1, STEPS + 1)]
    assert rates[:3] == pytest.approx([1e-3 / 3, 2e-3 / 3, 1e-3])
    assert rates[-1] == 1e-6


def test_the_loss_of_an_epoch_is_the_mean_over_its_images(
    undisturbed: tuple[Fitted, dict[tuple[int, str], float]],
) -> None:
    curves = undisturbed[1]
    losses = [curves[step, "train_loss"] for step in (1, 2, 3)]
    assert curves[3, "train_loss_of_epoch"] == pytest.approx((8 * losses[0] + 8 * losses[1] + 4 * losses[2]) / TRAIN)


def test_progress_rises_to_the_end_and_tells_the_time_left(tmp_path: Path) -> None:
    said = Said()
    fit(task(), tmp_path, said)
    progress = [event for event in said if isinstance(event, Progress)]
    fractions = [event.fraction for event in progress]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1
    assert progress[-1].eta_seconds == pytest.approx(0, abs=1)
    assert (progress[-1].epoch, progress[-1].epochs, progress[-1].steps) == (EPOCHS, EPOCHS, STEPS)


def test_checkpoints_come_by_time_and_at_the_end(tmp_path: Path) -> None:
    for seconds, steps in ((0, [*range(1, STEPS + 1), STEPS]), (1000, [STEPS])):
        said = Said()
        fit(task(checkpoint_seconds=seconds), tmp_path / str(seconds), said)
        assert [event.step for event in said if isinstance(event, CheckpointWritten)] == steps


def test_weights_of_epochs_are_kept_on_request_and_change_nothing(
    undisturbed: tuple[Fitted, dict[tuple[int, str], float]], tmp_path: Path
) -> None:
    changes: dict[str, Any] = {"keep_every_epochs": 2, "checkpoint_seconds": 3600}
    first = Said()
    with pytest.raises(Interrupted):
        fit(task(**changes), tmp_path, first, lambda: len(first.metrics()) > 2 * STEPS_PER_EPOCH * 3)
    second = Said()
    assert equal(fit(task(**changes), tmp_path, second), undisturbed[0])
    kept = [event for event in [*first, *second] if isinstance(event, CheckpointWritten) and event.kept]
    assert [(event.step, event.epoch) for event in kept] == [(2 * STEPS_PER_EPOCH, 2), (STEPS, 4)]
    assert [load_checkpoint(Path(event.path)).state["position"]["epoch"] for event in kept] == [2, 4]


def test_a_checkpoint_that_is_due_while_one_is_written_comes_later(tmp_path: Path) -> None:
    said, gate = Said(), Gate()

    def report(event: Event) -> None:
        if isinstance(event, CheckpointWritten):
            gate.wait()
        elif isinstance(event, Metrics) and event.step == 5:
            gate.set()
        said(event)

    fit(task(checkpoint_seconds=1e-9), tmp_path, report)
    written = [event.step for event in said if isinstance(event, CheckpointWritten)]
    assert written[0] == 1
    assert not {2, 3, 4} & set(written)
    assert written[-1] == STEPS


def test_a_checkpoint_that_can_not_be_written_ends_the_run_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    said = Said()
    with pytest.raises(CheckpointError, match="could not be written"):
        fit(task(), tmp_path / "file", said)
    assert max(event.step for event in said if isinstance(event, Metrics)) <= 2


# ── Choosing and stopping ────────────────────────────────────────────────────────────────────────────────────────


class Scripted(nn.Module):
    """Answers the validation part with as many right classes as a script says, one entry an epoch."""

    def __init__(self, right: list[int]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.right, self.epoch = right, -1

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            return self.weight * torch.ones(len(images), 3)
        self.epoch += 1
        labels = torch.arange(TRAIN, TRAIN + VALIDATION) % 3
        chosen = torch.where(torch.arange(VALIDATION) < self.right[self.epoch], labels, (labels + 1) % 3)
        return 5 * nn.functional.one_hot(chosen, 3).float() + 0 * self.weight


def scripted(right: list[int], folder: Path, **changes: Any) -> State:
    return fit(task(Scripted(right), epochs=len(right), **changes), folder, Said()).state


def test_the_best_epoch_is_kept_and_the_first_of_equals(tmp_path: Path) -> None:
    state = scripted([2, 6, 6, 4], tmp_path)
    assert (state.best_epoch, state.best_step, state.epoch, state.stopped_early) == (2, 6, 4, False)
    assert state.best_loss_weight_focal == pytest.approx(0.5)


def test_it_stops_when_patience_is_at_its_end(tmp_path: Path) -> None:
    state = scripted([2, 6, 4, 4, 8, 8], tmp_path, patience=2)
    assert (state.epoch, state.best_epoch, state.stopped_early) == (4, 2, True)


def test_the_kept_weights_are_those_of_the_best_epoch(tmp_path: Path) -> None:
    made = task(Scripted([2, 6, 4]), epochs=3)
    seen: list[Tensor] = []

    def look(event: Event) -> None:
        if isinstance(event, Metrics) and "validation_loss" in event.values:
            seen.append(made.model.state_dict()["weight"].clone())

    fitted = fit(made, tmp_path, look)
    assert torch.equal(fitted.weights["weight"], seen[1])
    assert not torch.equal(seen[1], seen[2])


def test_the_monitor_may_be_the_loss(tmp_path: Path) -> None:
    state = scripted([2, 6, 4], tmp_path, monitor="loss")
    assert state.best_epoch == 2
    assert state.best_value is not None
    assert state.best_value < 0


def test_validation_is_by_plain_cross_entropy_whatever_the_loss_weighs() -> None:
    made = task()
    before = validate(made)
    made.loss.t.fill_(STEPS)  # by now the trained loss is all focal
    assert validate(made) == before
    logits = infer_logits(made.model, made.pixels, made.validation, 8, made.compute)
    wanted = nn.functional.cross_entropy(
        torch.from_numpy(logits).double(), torch.from_numpy(made.labels[made.validation])
    )
    assert before["validation_loss"] == pytest.approx(wanted.item(), rel=1e-12)
    assert cross_entropy(logits + 1e4, made.labels[made.validation]) == pytest.approx(wanted.item(), rel=1e-3)


# ── One step ─────────────────────────────────────────────────────────────────────────────────────────────────────


def one_step(made: Task) -> float:
    images = torch.from_numpy(made.pixels[:BATCH])
    return train_step(made, images, torch.from_numpy(made.labels[:BATCH]), State())


def test_a_step_changes_the_weights_and_moves_the_schedule_on() -> None:
    made = task()
    before = deepcopy(made.model.state_dict())
    assert one_step(made) > 0
    assert int(made.loss.t) == 1
    assert any(not torch.equal(value, before[name]) for name, value in made.model.state_dict().items())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_before_the_weights_are_touched(bad: float) -> None:
    made = task()
    made.model.register_forward_hook(lambda module, inputs, output: output * bad)
    before = deepcopy(made.model.state_dict())
    with pytest.raises(NonFiniteLoss, match="at step 1, learning rate"):
        one_step(made)
    assert all(torch.equal(value, before[name]) for name, value in made.model.state_dict().items())
    assert made.optimizer.state_dict()["state"] == {}


def test_a_net_that_answers_nonsense_is_not_validated() -> None:
    made = task()
    made.model.register_forward_hook(lambda module, inputs, output: output * float("nan"))
    with pytest.raises(NonFiniteLoss, match="lower the learning rate"):
        validate(made)


def test_a_step_is_adamw_at_the_scheduled_rate() -> None:
    """Against torch's own optimizer, on gradients of the same loss."""
    made = task()
    twin = deepcopy(made.model)
    optimizer = torch.optim.AdamW(twin.parameters(), lr=1e-3 / 3, weight_decay=0.05)
    train_step(made, torch.from_numpy(made.pixels[:BATCH]), torch.from_numpy(made.labels[:BATCH]), State())
    for mine, theirs in zip(made.model.parameters(), twin.parameters(), strict=True):
        theirs.grad = mine.grad
    optimizer.step()
    for mine, theirs in zip(made.model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(mine, theirs)
