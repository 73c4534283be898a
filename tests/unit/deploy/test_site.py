"""The documentation as pages, and the list of what is delivered."""

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_the_pages_can_be_built_and_load_nothing_from_another_host(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages = list(tmp_path.rglob("*.html"))
    sources = {page.name for page in (ROOT / "docs").glob("*.md")}
    assert {page.with_suffix(".md").name for page in pages} >= sources
    loads = re.compile(r"<(?:script|img|iframe|link)\b[^>]*?\b(?:src|href)=\"?(?:https?:)?//[^>]*>")
    for page in pages:
        assert loads.findall(page.read_text(encoding="utf-8")) == [], page.name
    for sheet in tmp_path.rglob("*.css"):
        assert not re.search(r"url\([\"']?(?:https?:)?//", sheet.read_text(encoding="utf-8")), sheet.name


def test_the_first_page_and_the_readme_lead_to_every_other_page() -> None:
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - {"index.md"}
    first = (ROOT / "docs/index.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\]\((\w+\.md)\)", first)) == pages
    assert set(re.findall(r"\]\(docs/(\w+\.md)\)", (ROOT / "README.md").read_text(encoding="utf-8"))) >= pages


def test_the_bill_of_materials_lists_what_the_lock_file_pins(tmp_path: Path) -> None:
    made = tmp_path / "sbom.json"
    run = [sys.executable, "-m", "cyclonedx_py", "requirements", "requirements.lock", "--pyproject", "pyproject.toml"]
    run += ["--output-reproducible", "--output-format", "JSON", "--output-file", str(made)]
    subprocess.run(run, cwd=ROOT, capture_output=True, check=True)
    told = {(part["name"].lower(), part["version"]) for part in json.loads(made.read_text())["components"]}
    pinned = re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert {(name.lower(), version) for name, version in pinned} == told
