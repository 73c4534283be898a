"""The three scripts of docs/quickstart.md, as they stand there, from upload to predictions on a running product."""

import csv
import os
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from bgpanet.data import synthetic

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")
SCRIPTS: Mapping[str, tuple[str, str]] = {
    title: (language, text)
    for title, language, text in re.findall(r"^## With (.+?)\n.*?^```(sh|python)\n(.*?)^```", PAGE, re.M | re.S)
}
LESIONS = 480  # so that every class has enough for the usual five folds


def environment(**more: str) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("BGPANET_")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{clean['PATH']}"
    return {**clean, "PATH": path, "PYTHONPATH": str(ROOT), "BGPANET_OFFLINE": "1", **more}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    synthetic.draw(folder / "archive" / "HAM", lesions=LESIONS)
    return Path(shutil.make_archive(str(folder / "lesions"), "zip", folder / "archive"))


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What tells where a running product is."""
    home = tmp_path_factory.mktemp("product") / "home"
    command = [sys.executable, "-m", "services.cli", "up", "--home", str(home), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        try:
            assert line.startswith("ready: "), line
            token = (home / "token").read_text(encoding="utf-8").strip()
            yield {"BGPANET_URL": line.removeprefix("ready: ").strip(), "BGPANET_TOKEN": token}
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(240)


def test_there_is_a_script_of_about_ten_lines_for_each_way() -> None:
    assert {title: language for title, (language, _) in SCRIPTS.items()} == (
        {"the command line": "sh", "the Python client": "python", "curl": "sh"}
    )
    for _, text in SCRIPTS.values():
        assert len(text.splitlines()) <= 12


@pytest.mark.parametrize("way", SCRIPTS)
def test_a_script_of_the_quickstart_leads_from_upload_to_predictions(
    way: str, service: dict[str, str], archive: Path, tmp_path: Path
) -> None:
    language, text = SCRIPTS[way]
    shutil.copy(archive, tmp_path / "lesions.zip")
    with zipfile.ZipFile(tmp_path / "lesions.zip", "a") as file:
        file.comment = way.encode()  # other bytes for each, so that each really uploads
    command = [sys.executable, "-c", text] if language == "python" else ["bash", "-euo", "pipefail", "-c", text]
    home = {"BGPANET_HOME": str(tmp_path / "nobody")}  # so that only the two variables tell where it is
    done = subprocess.run(command, cwd=tmp_path, env=environment(**service, **home), capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    with (tmp_path / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) >= LESIONS
    assert all(row["predicted"] and not row["error"] for row in rows)
    shares = [sum(float(value) for name, value in row.items() if name.startswith("p_")) for row in rows]
    assert shares == pytest.approx([1] * len(rows), abs=1e-3)
