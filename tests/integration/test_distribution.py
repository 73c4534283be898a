"""Wheel and sdist: named after the last tag, complete, and running where the checkout is not to be seen."""

import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parents[2]
PAGES = ("/docs", "/openapi.json", "/login", "/static/style.css", "/metrics", "/readyz")


def run(*command: str | Path, folder: Path, **environment: str) -> str:
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("BGPANET_", "PYTHON", "SETUPTOOLS_"))
    }
    done = subprocess.run(
        [str(part) for part in command], cwd=folder, env={**clean, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout.strip()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an sdist of the checkout, and the wheel that is built from that sdist."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, folder=folder)
    return folder


def only(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


def version_of(wheel: Path) -> str:
    with zipfile.ZipFile(wheel) as files:
        (name,) = [name for name in files.namelist() if name.endswith(".dist-info/METADATA")]
        found = re.search(r"^Version: (.+)$", files.read(name).decode(), re.MULTILINE)
    assert found is not None
    return found[1]


def test_the_wheel_has_every_file_of_the_packages(built: Path) -> None:
    with zipfile.ZipFile(only(built, "*.whl")) as wheel:
        inside = {name for name in wheel.namelist() if ".dist-info/" not in name}
    packages = [ROOT / name for name in ("bgpanet", "services", "migrations")]
    files = {path for package in packages for path in package.rglob("*") if path.is_file()}
    wanted = {str(path.relative_to(ROOT)) for path in files if "__pycache__" not in path.parts}
    assert inside == wanted
    assert any(name.endswith(".html") for name in inside)


def test_the_sdist_has_what_is_needed_to_test_and_document_it(built: Path) -> None:
    with tarfile.open(only(built, "*.tar.gz")) as sdist:
        inside = {name.partition("/")[2] for name in sdist.getnames()}
    wanted = ["README.md", "LICENSE", "CHANGELOG.md", "Makefile", "requirements.lock", "mkdocs.yml", "pyproject.toml"]
    wanted += ["docs/operations.md", "deploy/prometheus/alerts.yml", "tests/conftest.py", "studies/loss_ablation.yaml"]
    assert [name for name in wanted if name not in inside] == []
    assert not any(name.startswith((".git/", ".venv")) for name in inside)


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """What a version is made of, without git's history."""
    folder = tmp_path / "sources"
    folder.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    return folder


def test_the_version_is_the_last_tag_s_and_none_is_made_up(sources: Path) -> None:
    ask = (sys.executable, "-m", "hatchling", "version")
    assert run(*ask, folder=sources) == "0.1.dev0"
    git = ("git", "-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    run(*git, "init", "-q", folder=sources)
    run(*git, "add", "-A", folder=sources)
    run(*git, "commit", "-qm", "first", folder=sources)
    assert re.match(r"0\.1\.dev1\+g[0-9a-f]+", run(*ask, folder=sources))
    run(*git, "tag", "v1.2.3", folder=sources)
    assert run(*ask, folder=sources) == "1.2.3"
    run(*git, "commit", "-qm", "second", "--allow-empty", folder=sources)
    assert run(*ask, folder=sources).startswith("1.2.4.dev1+g")


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel, which borrows its dependencies from this one, but not the checkout."""
    folder = tmp_path_factory.mktemp("installed") / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", folder, folder=folder.parent)
    python = folder / "bin/python"
    own = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", folder=folder))
    (own / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python)
    run(*pip, "install", "--quiet", "--no-deps", "--no-index", "--force-reinstall", only(built, "*.whl"), folder=folder)
    return folder


def test_the_command_runs_outside_the_checkout_and_serves_its_pages(
    installed: Path, built: Path, tmp_path: Path
) -> None:
    where = "import bgpanet, services, migrations; print(*(m.__file__ for m in (bgpanet, services, migrations)))"
    for file in run(installed / "bin/python", "-c", where, folder=tmp_path).split():
        assert Path(file).is_relative_to(installed)
    with up(installed / "bin/bgpanet", tmp_path) as address:
        answers = {page: httpx.get(address + page, timeout=30) for page in PAGES}
        assert {page: answer.status_code for page, answer in answers.items()} == dict.fromkeys(PAGES, 200)
        assert answers["/openapi.json"].json()["info"]["version"] == version_of(only(built, "*.whl"))


@contextmanager
def up(command: Path, folder: Path) -> Iterator[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("BGPANET_", "PYTHON"))}
    arguments = [str(command), "up", "--home", str(folder / "home"), "--port", "0"]
    environment = {**clean, "BGPANET_OFFLINE": "1"}
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, cwd=folder, env=environment) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        try:
            assert line.startswith("ready: http://127.0.0.1:"), line
            yield line.removeprefix("ready: ").strip()
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
