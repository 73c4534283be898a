"""`python -m bgpanet` as a person uses it: without a service."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.timeout(900)
SPEC = {
    "model": {"name": "bgpanet_micro"},
    "image_size": 32,
    "split": {"folds": 2, "validation_folds": 2},
    "training": {"epochs": 2, "batch_size": 16, "precision": "fp32"},
}


def command(kind: str, spec: Path, output: Path) -> list[str]:
    return [sys.executable, "-m", "bgpanet", kind, str(spec), "--output", str(output), "--threads", "1"]


def write(path: Path, **changes: object) -> Path:
    path.write_text(yaml.safe_dump({**SPEC, **changes}), encoding="utf-8")
    return path


def run(kind: str, spec: Path, output: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(kind, spec, output), capture_output=True, text=True, timeout=600)


@pytest.fixture
def spec(tmp_path: Path, lesions: Path) -> Path:
    return write(tmp_path / "spec.yaml", data={"format": "ham10000", "path": str(lesions)})


def test_it_trains_says_how_it_goes_and_prints_the_figures(spec: Path, tmp_path: Path) -> None:
    done = run("train", spec, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "balanced accuracy 0." in done.stdout
    assert "leaking groups 0" in done.stdout
    assert "100%" in done.stderr
    figures = json.loads((tmp_path / "out" / "report.json").read_text())["figures"]
    assert f"balanced accuracy {figures['balanced_accuracy']:.3f}" in done.stdout


def test_a_wrong_spec_is_refused_with_every_problem_before_anything_is_written(tmp_path: Path) -> None:
    spec = write(tmp_path / "spec.yaml", model="bgpanet_mico", image_size=-1, unknown=1)
    done = run("train", spec, tmp_path / "out")
    assert done.returncode == 2
    told = " ".join(done.stderr.split())
    assert "did you mean 'bgpanet_micro'" in told
    assert "spec.yaml.image_size" in told
    assert "spec.yaml.unknown" in told
    assert not (tmp_path / "out").exists()


def test_a_run_that_is_stopped_goes_on_with_the_same_command(spec: Path, lesions: Path, tmp_path: Path) -> None:
    data = {"format": "ham10000", "path": str(lesions)}
    training = {**SPEC["training"], "epochs": 40, "checkpoint_seconds": 0}  # type: ignore[dict-item]
    write(spec, data=data, training=training)
    output = tmp_path / "out"
    process = subprocess.Popen(command("train", spec, output), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while not list(output.glob("checkpoints/step-*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(240) == 75
    done = run("train", spec, output)
    assert done.returncode == 0, done.stderr
    assert "going on after step" in done.stderr


def test_brackets_in_a_message_are_no_markup(tmp_path: Path) -> None:
    spec = write(tmp_path / "spec.yaml", data={"format": "ham10000", "path": "lesions[/b]"})
    done = run("train", spec, tmp_path / "out")
    assert done.returncode == 2
    assert "lesions[/b] is no folder" in " ".join(done.stderr.split())


def test_every_command_is_in_the_help() -> None:
    done = subprocess.run([sys.executable, "-m", "bgpanet", "--help"], capture_output=True, text=True, check=True)
    for name in ("train", "cross_validate", "predict"):
        assert f" {name} " in done.stdout
