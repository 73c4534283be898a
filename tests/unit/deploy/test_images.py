"""What the images are made of: exactly what the lock file pins, no torch where it says so, and no root."""

import re
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

from tests.support.deployment import ROOT

FILES = sorted((ROOT / "deploy").glob("*.Dockerfile"))
LOCKS = sorted((ROOT / "deploy").glob("requirements-*.lock"))
each_file = pytest.mark.parametrize("file", FILES, ids=lambda path: path.name)


def pinned(path: Path) -> dict[str, set[str]]:
    """Every package with its version, and its hashes."""
    lines = path.read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    return {
        re.split(r"[ ;]", line)[0]: set(re.findall(r"--hash=sha256:([0-9a-f]{64})", line)) for line in lines if line
    }


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_images_hold_only_what_the_lock_pins(lock: Path) -> None:
    whole, part = pinned(ROOT / "requirements.lock"), pinned(lock)
    assert part
    assert {name: hashes for name, hashes in part.items() if whole.get(name) != hashes} == {}
    assert all(part.values())
    assert "://" not in lock.read_text(encoding="utf-8")


def test_the_api_image_has_no_torch_and_the_worker_image_has() -> None:
    api, worker = (
        {name.split("==")[0] for name in pinned(ROOT / "deploy" / f"requirements-{part}.lock")}
        for part in ("api", "worker")
    )
    assert api < worker
    assert {"torch", "torchvision"} <= worker
    assert not {name for name in api if re.match(r"torch|nvidia|cuda|triton|scipy|scikit|opencv", name)}
    assert {"flask", "gunicorn", "celery", "psycopg", "boto3", "alembic"} <= api


@each_file
def test_dockerfiles_pass_their_linter(file: Path) -> None:
    hadolint = shutil.which("hadolint", path=sysconfig.get_path("scripts")) or "hadolint"
    done = subprocess.run([hadolint, str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@each_file
def test_images_are_pinned_and_not_root(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    bases = re.findall(r"^FROM (\S+)", text, re.M)
    assert len(bases) == 2
    assert all(re.fullmatch(r"python:\d+\.\d+\.\d+-slim-\w+", base) for base in bases)
    final = text.rsplit("FROM ", 1)[1]
    assert re.findall(r"^USER (\d+):\d+$", final, re.M) == ["10001"]
    assert "--require-hashes" in text


@each_file
def test_what_a_dockerfile_copies_is_sent_to_the_builder(file: Path) -> None:
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for line in re.findall(r"^COPY (?!--from)(.+)$", file.read_text(encoding="utf-8"), re.M):
        for source in line.split()[:-1]:
            source = source.removeprefix("./")
            assert (ROOT / source).exists()
            assert any(Path(source).match(pattern) for pattern in allowed), source
