"""Several processes that train as one: really two of them, with gloo, under torchrun."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from bgpanet.events import Event, Failure, Log, Started
from bgpanet.experiment import Workplace
from bgpanet.experiment import train as train_run
from bgpanet.runner import INTERRUPTED, WRONG, Run, Voice, execute, start_together
from bgpanet.specs import TrainSpec, read_spec
from bgpanet.training.distributed import ALONE, Processes, parts, rows_of
from tests.support.two_processes import BATCH, SAME, gradients, train

pytestmark = pytest.mark.timeout(900)
LAUNCH = "import sys; from bgpanet.runner import torchrun; sys.exit(abs(max(torchrun(2, sys.argv[1:]), -1)))"

# In fp32 two processes add the same numbers in another order. Losses and logits differ by rounding, some 1e-7. AdamW
# divides a gradient by its own size, so where that is little more than rounding a weight may go another way, by no
# more than the rate of a step: 6e-4 over these six. A wrong share of one image moves weights by a tenth of that.
WEIGHTS, FIGURES = 1e-5, 1e-5


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


# ── Parts ────────────────────────────────────────────────────────────────────────────────────────────────────────


@given(images=st.integers(1, 80), size=st.integers(1, 20), count=st.integers(1, 9))
def test_the_parts_of_all_processes_hold_every_image_of_a_batch_once(images: int, size: int, count: int) -> None:
    of_each = [parts(images, size, Processes(number, count)) for number in range(count)]
    weight = np.zeros(images)
    for part in (part for found in of_each for part in found):
        weight[part.rows] += 1 / part.copies
        assert part.first <= part.start < part.stop <= part.last
        assert part.stop - part.start <= size
    np.testing.assert_allclose(weight, 1)
    assert len({tuple((part.first, part.last) for part in found) for found in of_each}) == 1  # they pass together
    for found in of_each:
        assert np.array_equal(rows_of(found), np.unique(rows_of(found)))


@given(images=st.integers(1, 80), size=st.integers(1, 20))
def test_one_process_takes_a_batch_in_parts_of_the_size_asked_for(images: int, size: int) -> None:
    lengths = [part.stop - part.start for part in parts(images, size, ALONE)]
    assert sum(lengths) == images
    assert set(lengths[:-1]) <= {size}


# ── Two processes ────────────────────────────────────────────────────────────────────────────────────────────────


def launch(*module: str) -> subprocess.Popen[str]:
    """The module under torchrun, in two processes."""
    return subprocess.Popen(
        [sys.executable, "-c", LAUNCH, *module],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "COLUMNS": "200"},
    )


@dataclass(frozen=True)
class Together:
    """What two processes left behind."""

    folder: Path
    status: int
    errors: str

    def part(self, name: str) -> dict[str, Tensor]:
        assert (self.folder / "results.safetensors").exists(), self.errors
        tensors = load_file(self.folder / "results.safetensors")
        return {key.removeprefix(f"{name}/"): value for key, value in tensors.items() if key.startswith(f"{name}/")}


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Together:
    folder = tmp_path_factory.mktemp("two")
    process = launch("tests.support.two_processes", str(folder))
    _, errors = process.communicate(timeout=800)
    return Together(folder, process.returncode, errors)


@pytest.mark.parametrize("name", SAME)
def test_two_processes_train_as_one_does(name: str, together: Together, tmp_path: Path) -> None:
    """Uneven batches, and one of a single image, are among them; see `two_processes.py` for the recipes."""
    alone, figures = train(SAME[name](ALONE), tmp_path)
    found = together.part(name)
    assert found.keys() == alone.keys()
    for key, value in alone.items():
        torch.testing.assert_close(found[key], value, rtol=0, atol=FIGURES if key == "logits" else WEIGHTS, msg=key)
    said = json.loads((together.folder / "said.json").read_text())[name]
    assert said == pytest.approx(figures, rel=0, abs=FIGURES)


@pytest.mark.parametrize("images", [BATCH, 1])
def test_gradients_are_those_of_the_mean_over_the_whole_batch(images: int, together: Together) -> None:
    """Of a loss that weighs images within a batch; AdamW would hide a wrong scale."""
    alone, found = gradients(ALONE, images), together.part(f"gradients of {images}")
    assert found.keys() == alone.keys()
    for name, value in alone.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5 * float(value.abs().max()) + 1e-7)


def test_two_processes_that_die_and_go_on_end_with_the_same_bits(together: Together) -> None:
    whole, again = together.part("plain"), together.part("again")
    assert again.keys() == whole.keys()
    assert all(torch.equal(again[name], whole[name]) for name in whole)


def test_all_processes_end_when_one_dies(together: Together) -> None:
    """The checks that each process makes by itself have passed by then: `stopped` together, NaN before any update."""
    assert together.status == 1
    assert "AssertionError" not in together.errors
    for number in range(2):
        pid = int((together.folder / f"pid-{number}").read_text())
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert not (together.folder / "survived").exists()


# ── The command ──────────────────────────────────────────────────────────────────────────────────────────────────


def write_spec(path: Path, lesions: Path, **changes: object) -> Path:
    values = {
        "data": {"format": "ham10000", "path": str(lesions)},
        "model": "bgpanet_micro",
        "image_size": 32,
        "split": {"folds": 2, "validation_folds": 2},
        "training": {"epochs": 12, "batch_size": 4, "precision": "fp32", "checkpoint_seconds": 1000},
    }
    path.write_text(yaml.safe_dump({**values, **changes}), encoding="utf-8")
    return path


def test_a_stopped_run_of_two_leaves_one_checkpoint_from_which_one_process_goes_on(
    lesions: Path, tmp_path: Path
) -> None:
    spec, output = write_spec(tmp_path / "spec.yaml", lesions), tmp_path / "out"
    process = launch("bgpanet", "train", str(spec), "--output", str(output), "--threads", "1")
    assert process.stderr is not None
    told = ""
    while "2 processes" not in told and (line := process.stderr.readline()):
        told += line
    process.send_signal(signal.SIGTERM)
    told += process.communicate(timeout=240)[1]
    assert process.returncode == INTERRUPTED, told
    assert told.count("stopped after step") == 1
    (checkpoint,) = (output / "checkpoints").iterdir()
    state = json.loads((checkpoint / "state.json").read_text())
    assert (state["position"]["processes"], state["compute"]["processes"]) == ([2], 2)

    said: list[Event] = []
    wanted = read_spec("train", spec)
    assert isinstance(wanted, TrainSpec)
    train_run(wanted, Workplace(output, output / "cache", said.append, threads=1))
    assert [event.step for event in said if isinstance(event, Started)] == [state["position"]["step"]]
    assert "2 then 1 processes" in " ".join(event.message for event in said if isinstance(event, Log))
    assert json.loads((output / "report.json").read_text())["processes"] == [2, 1]


@pytest.fixture
def _signals() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("_signals")
def test_more_gpus_than_there_are_is_refused_at_once(lesions: Path, tmp_path: Path) -> None:
    wanted = torch.cuda.device_count() + 2
    spec = write_spec(tmp_path / "spec.yaml", lesions, resources={"gpus": wanted})
    run = Run("train", spec, tmp_path / "out", tmp_path / "cache", 1)
    said: list[Event] = []
    assert start_together(run) is None
    assert execute(run, said.append) == WRONG
    (failure,) = said
    assert isinstance(failure, Failure)
    assert failure.message == f"resources.gpus: {wanted} are wanted, and {wanted - 2} are here"
    assert not (tmp_path / "out").exists()


def test_of_several_processes_one_speaks_and_the_first_to_fail_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "a run")
    monkeypatch.setenv("RANK", "1")
    said: list[Event] = []
    voice = Voice(said.append)
    voice(Log(message="heard from the first"))
    voice(Failure(reason="invalid_input", message="as the first says too"))
    voice.is_first_to_fail = lambda: True
    voice(Failure(reason="out_of_memory", message="mine alone"))
    assert [event.message for event in said if isinstance(event, Failure)] == ["mine alone"]
    assert len(said) == 1
