"""What holds the house together: import contracts that fail when they are broken, no torch in the control plane, one
writer of a job's state, and a README that names every file."""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SERVICES = sorted((ROOT / "services").rglob("*.py"))


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable,
            "-c",
            "from importlinter.cli import lint_imports_command; lint_imports_command()",
            "--no-cache",
        ],
        cwd=folder,
        capture_output=True,
        text=True,
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for package in ("bgpanet", "services"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("bgpanet/text.py", "import services.ids", "The science knows nothing of the service"),
        ("services/ids.py", "import torch", "The service never imports torch, directly or through bgpanet"),
        ("services/ids.py", "import bgpanet.inference", "The service never imports torch, directly or through bgpanet"),
        ("bgpanet/errors.py", "import bgpanet.inference", "Specs, events and errors import no torch"),
        (
            "services/api/jobs.py",
            "import services.dashboard.lists",
            "API, dashboard and worker do not import each other",
        ),
        ("services/worker/files.py", "import services.api.jobs", "API, dashboard and worker do not import each other"),
    ],
)
def test_each_import_contract_fails_when_it_is_broken(copy: Path, file: str, line: str, contract: str) -> None:
    path = copy / file
    path.write_text(f"{path.read_text()}\n\n{line}  # noqa\n")
    done = lint(copy)
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"{contract} BROKEN" in done.stdout


def test_the_contracts_hold(copy: Path) -> None:
    done = lint(copy)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


WITHOUT_TORCH = """
import sys
class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision", "safetensors", "sklearn", "scipy", "pyarrow"):
            raise ImportError(name + " is not installed")
sys.meta_path.insert(0, NoTorch())
import services.cli, services.scheduler, services.migration, services.local, services.worker
from services.settings import Settings
from services.web import create_app
app = create_app(Settings.load({"BGPANET_HOME": sys.argv[1]}))
print(app.test_client().get("/healthz").status_code)
"""


def test_the_control_plane_starts_where_neither_torch_nor_its_companions_are_installed(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "200", done.stderr


def test_only_jobs_writes_jobs() -> None:
    """A job's state changes in one package alone, so that the state machine can be read in one place."""
    writers = set()
    for path in SERVICES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node).startswith(
                ("insert(Job)", "update(Job)", "delete(Job)")
            ):
                writers.add(path.parent)
    assert writers == {ROOT / "services" / "jobs"}


def test_only_settings_reads_the_configuration_from_the_environment() -> None:
    readers = {path.name for path in SERVICES if re.search(r"environ(\.get\(|\[)\"?BGPANET_", path.read_text())}
    assert readers <= {"settings.py"}


def files() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("this is no checkout")
    return [name for name in listed.stdout.splitlines() if (ROOT / name).exists()]


def test_the_readme_has_a_line_for_every_file_and_none_for_others() -> None:
    """In its list, a file in a folder is named alone under the folder's line."""
    told: list[str] = []
    folder = ""
    for line in (ROOT / "README.md").read_text(encoding="utf-8").split("## Every file", 1)[1].splitlines():
        if match := re.match(r"### `(.+)/`", line):
            folder = "" if match[1] == "." else match[1] + "/"
        elif match := re.match(r"- ((?:`[^`]+`(?:, )?)+): \S", line):
            told += [folder + name for name in re.findall(r"`([^`]+)`", match[1])]
    assert sorted(told) == sorted(files())


def test_the_lock_pins_every_package_with_hashes_and_names_no_index() -> None:
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert len(lines) > 60
    assert [line for line in lines if not re.match(r"[\w.-]+==\S+ .*--hash=sha256:[0-9a-f]{64}", line)] == []
    assert "://" not in text


def test_every_test_that_the_documentation_names_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", "".join(path.read_text() for path in (ROOT / "docs").glob("*.md"))))
    defined = {
        name for path in (ROOT / "tests").rglob("test_*.py") for name in re.findall(r"def (test_\w+)", path.read_text())
    }
    assert len(named) > 5
    assert named <= defined
