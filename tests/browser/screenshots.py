"""Pictures of every page, of a product that has just done real work: `make screenshots`.

Starts `bgpanet up` on drawn images, registers them, trains, cross-validates and explains, lets one job fail and one
wait, and then visits the pages in chromium: wide by day, and some of them by night and on a phone.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from bgpanet.data import synthetic
from services.client import ENDED, Client, JobHandle

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
MOST_BYTES = 150_000
WAIT_SECONDS = 1800.0
SPEC: dict[str, Any] = {
    "model": "bgpanet_micro",
    "training": {"epochs": 12, "batch_size": 32, "learning_rate": 1e-3, "warmup_epochs": 1, "patience": 12},
}
LONG = {**SPEC, "training": {**SPEC["training"], "epochs": 400, "patience": 400}}
VISITS: tuple[tuple[Literal["light", "dark"], int, tuple[str, ...]], ...] = (
    ("light", 1280, ()),
    ("dark", 1280, ("overview", "job")),
    ("light", 390, ("overview", "jobs", "job")),
)
"""Colours, width in pixels, and names of pages; none: all."""


def main() -> int:
    """Writes PNGs into the folder that is named, or docs/screenshots."""
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/screenshots")
    target.mkdir(parents=True, exist_ok=True)
    home = Path(tempfile.mkdtemp(prefix="bgpanet-screenshots-"))
    try:
        with _service(home) as (client, token):
            paths = _work(client, home)
            _photograph(client.url, token, paths, target)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    return 0


@contextmanager
def _service(home: Path) -> Iterator[tuple[Client, str]]:
    command = [sys.executable, "-m", "services.cli", "up", "--home", str(home), "--port", "0", "--workers", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline().strip()
        if not line.startswith("ready: "):
            raise SystemExit(f"the service did not start: {line}")
        token = (home / "token").read_text(encoding="utf-8").strip()
        with Client(line.removeprefix("ready: "), token) as client:
            yield client, token
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _work(client: Client, home: Path) -> dict[str, str]:
    """Does the work. Returns the pages by the names of their pictures."""
    synthetic.draw(home / "lesions")
    client.add_dataset("lesions", "ham10000", home / "lesions")
    training = client.submit("train", dataset="lesions", spec=SPEC, name="BGPANet micro, first look")
    folds = {**SPEC, "split": {"folds": 3}}
    validation = client.submit("cross_validate", dataset="lesions", spec=folds, name="3-fold cross-validation")
    _wait(training, validation)
    explained = client.submit("explain", dataset="lesions", spec={"model": training.id}, name="what it looked at")
    short = client.submit("train", dataset="lesions", spec=LONG, name="over its time limit", time_limit=1)
    _wait(explained, short)
    running = client.submit("train", dataset="lesions", spec=LONG, name="BGPANet micro, 400 epochs")
    client.submit("train", dataset="lesions", spec=SPEC, name="a name that is rather long, to see what becomes of it")
    while not running.refresh().values["progress"]["epoch"]:
        time.sleep(0.5)
    time.sleep(10)  # a few epochs of curves
    compared = f"/compare?job={training.id}&job={validation.children()[1].id}"
    return {
        "overview": "/overview",
        "jobs": f"/jobs?open={validation.id}",
        "job-running": f"/jobs/{running.id}",
        "job": f"/jobs/{training.id}",
        "cross-validation": f"/jobs/{validation.id}",
        "compare": compared,
        "submit": "/submit?preset=quick",
        "datasets": "/datasets",
        "dataset": f"/datasets/{client.dataset('lesions')['id']}",
        "workers": "/workers",
        **_settings(client),
    }


def _settings(client: Client) -> dict[str, str]:
    """Something to see on the pages of settings."""
    client.post("tokens", {"name": "nightly", "scopes": ["read", "submit"], "user": "ada"})
    client.post("projects", {"id": "derma", "title": "Dermoscopy study"})
    client.put("projects/derma/members/ada", {"role": "researcher"})
    hook = client.post("webhooks", {"url": "https://lab.example.org/hooks/bgpanet", "states": ["succeeded", "failed"]})
    client.post(f"webhooks/{hook['id']}/ping", {})
    return {
        "settings-tokens": "/settings/tokens",
        "settings-project": "/settings/projects/derma",
        "settings-webhook": f"/settings/webhooks/{hook['id']}",
        "settings-audit": "/settings/audit",
    }


def _wait(*jobs: JobHandle) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while any(job.refresh().state not in ENDED for job in jobs):
        if time.monotonic() > deadline:
            raise SystemExit("the jobs did not end in time")
        time.sleep(1)


def _photograph(url: str, token: str, paths: dict[str, str], target: Path) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        for scheme, width, names in VISITS:
            _visit(browser, url, token, {name: paths[name] for name in names or paths}, target, scheme, width)
        browser.close()


def _visit(
    browser: Browser,
    url: str,
    token: str,
    paths: dict[str, str],
    target: Path,
    scheme: Literal["light", "dark"],
    width: int,
) -> None:
    context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 850})
    page = context.new_page()
    page.goto(f"{url}/login")
    page.get_by_label("Access token").fill(token)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/overview")
    for name, path in paths.items():
        page.goto(f"{url}{path}")
        page.wait_for_timeout(2500)  # curves are drawn
        suffix = ("-dark" if scheme == "dark" else "") + ("-phone" if width < 600 else "")
        file = target / f"{name}{suffix}.png"
        page.screenshot(path=file, full_page=True)
        _shrink(file)
        print(f"{file}: {file.stat().st_size / 1000:.0f} kB")
    context.close()


def _shrink(file: Path) -> None:
    """Fewer colours, and if need be fewer pixels, until the picture is small enough to keep."""
    with Image.open(file) as image:
        picture = image.convert("RGB")
    most = picture.height
    while True:
        picture.crop((0, 0, picture.width, most)).quantize(128).save(file, optimize=True)
        if file.stat().st_size <= MOST_BYTES:
            return
        most = most * 9 // 10  # the end of a long page can be spared


if __name__ == "__main__":
    sys.exit(main())
