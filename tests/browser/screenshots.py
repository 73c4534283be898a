"""Pictures of every page, of a product that has just done real work: `make screenshots`.

Starts `bgpanet up`, visits its pages while they are empty, draws images, registers them, trains, cross-validates and
explains, registers models, lets one job fail and one wait, and visits the pages again: wide by day, most of them by
night and on a phone too, and what they show when something is wrong.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from bgpanet.data import synthetic
from services.client import ENDED, Client, JobHandle

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
MOST_BYTES, MOST_BYTES_IN_ALL = 150_000, 3_000_000
WAIT_SECONDS = 1800.0
SPEC: dict[str, Any] = {
    "model": "bgpanet_micro",
    "image_size": 32,  # few seconds of work, not good figures
    "training": {"epochs": 10, "batch_size": 64, "learning_rate": 1e-3, "warmup_epochs": 1, "patience": 10},
}
FOLDS = {**SPEC, "split": {"folds": 5}, "training": {**SPEC["training"], "epochs": 3}}
LONG = {**SPEC, "training": {**SPEC["training"], "epochs": 400, "patience": 400}}
LONG_NAME = (
    "Ablation of the fine branch with the cosine schedule of both weights, 5 folds by lesion, seed 7, "
    "resubmitted_after_the_disk_of_node_17_was_full_on_2026-03-01T14:05:09Z"
)
Do = Callable[[Page], None]


@dataclass(frozen=True)
class Visit:
    """Who looks, and at which pictures by name; none: all. most_height: pixels; what stands lower is cut off."""

    scheme: Literal["light", "dark"]
    width: int
    names: tuple[str, ...] = ()
    most_height: int = 3200

    @property
    def suffix(self) -> str:
        return ("-dark" if self.scheme == "dark" else "") + ("-phone" if self.width < 600 else "")


WIDE = Visit("light", 1280)
VISITS = (
    WIDE,
    Visit("dark", 1280, ("overview", "jobs", "job", "job-running", "job-failed", "compare", "dataset", "submit"), 1800),
    Visit("light", 390, ("overview", "jobs", "job", "job-failed", "compare", "datasets", "submit", "not-found"), 2000),
    Visit("dark", 390, ("job-running", "job-waiting"), 2000),
)
EMPTY = {"empty-overview": "/overview", "empty-jobs": "/jobs", "empty-datasets": "/datasets"}


def main() -> int:
    """Writes PNGs into the folder that is named, or docs/screenshots."""
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/screenshots")
    target.mkdir(parents=True, exist_ok=True)
    home = Path(tempfile.mkdtemp(prefix="bgpanet-screenshots-"))
    try:
        with _service(home) as (client, token), _chromium() as browser:
            _visit(browser, client.url, token, EMPTY, target, WIDE)
            paths = _work(client, home)
            for visit in VISITS:
                _visit(browser, client.url, token, paths, target, visit)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    total = sum(file.stat().st_size for file in target.glob("*.png"))
    print(f"{total / 1e6:.1f} MB in all")
    if total > MOST_BYTES_IN_ALL:
        raise SystemExit(f"that is more than {MOST_BYTES_IN_ALL / 1e6:.0f} MB; keep less of a page, or fewer pages")
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
    validation = client.submit("cross_validate", dataset="lesions", spec=FOLDS, name="5-fold cross-validation")
    _wait(training, validation)
    client.registry.register("lesions", training.id, alias="champion", note="the first that was worth keeping")
    client.registry.register("lesions", validation.id)
    explained = client.submit("explain", dataset="lesions", spec={"model": training.id}, name="what it looked at")
    short = client.submit("train", dataset="lesions", spec=LONG, name="over its time limit", time_limit=1)
    _wait(explained, short)
    running = client.submit("train", dataset="lesions", spec=LONG, name="BGPANet micro, 400 epochs")
    waiting = client.submit("train", dataset="lesions", spec=SPEC, name=LONG_NAME)
    while not running.refresh().values["progress"]["epoch"]:
        time.sleep(0.5)
    time.sleep(10)  # a few epochs of curves
    compared = f"/compare?job={training.id}&job={validation.children()[1].id}"
    return {
        "overview": "/overview",
        "jobs": f"/jobs?open={validation.id}",
        "job-running": f"/jobs/{running.id}",
        "job": f"/jobs/{training.id}",
        "job-waiting": f"/jobs/{waiting.id}",
        "job-failed": f"/jobs/{short.id}",
        "job-cell": f"/jobs/{training.id}/cell?truth=nv&predicted=nv",
        "cross-validation": f"/jobs/{validation.id}",
        "compare": compared,
        "submit": "/submit?preset=quick",
        "submit-wrong": "/submit?preset=quick",
        "datasets": "/datasets",
        "dataset": f"/datasets/{client.dataset('lesions')['id']}",
        "dataset-new": "/datasets/new",
        "models": "/models",
        "model": "/models/lesions/versions/champion",
        "workers": "/workers",
        "not-found": "/jobs/0000",
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


def _submit_wrong(page: Page) -> None:
    for field, value in {"epochs": "0", "learning_rate": "-1", "warmup_epochs": "many"}.items():
        page.locator(f'[name="spec.training.{field}"]').fill(value)
    page.get_by_role("button", name="Submit", exact=True).click()
    page.wait_for_load_state("load")


BEFORE: Mapping[str, Do] = {"submit-wrong": _submit_wrong}
"""What is done on a page before its picture is taken, by the picture's name."""


@contextmanager
def _chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


def _visit(browser: Browser, url: str, token: str, paths: Mapping[str, str], target: Path, visit: Visit) -> None:
    context = browser.new_context(color_scheme=visit.scheme, viewport={"width": visit.width, "height": 850})
    page = context.new_page()
    page.goto(f"{url}/login")
    page.get_by_label("Access token").fill(token)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/overview")
    if not visit.names and paths is not EMPTY:  # pages of the navigation that nobody has named above
        links = [str(link.get_attribute("href")) for link in page.get_by_role("navigation").get_by_role("link").all()]
        paths = {**paths, **{link.strip("/"): link for link in links if link not in paths.values()}}
    for name in visit.names or paths:
        page.goto(f"{url}{paths[name]}")
        if name in BEFORE:
            BEFORE[name](page)
        page.wait_for_timeout(2500)  # curves are drawn
        file = target / f"{name}{visit.suffix}.png"
        page.screenshot(path=file, full_page=True)
        _shrink(file, visit.most_height)
        print(f"{file}: {file.stat().st_size / 1000:.0f} kB", flush=True)
    context.close()


def _shrink(file: Path, most: int) -> None:
    """Fewer colours, and if need be fewer pixels, until the picture is small enough to keep."""
    with Image.open(file) as image:
        picture = image.convert("RGB")
    palette, most = _palette(picture), min(most, picture.height)
    while True:
        kept = picture.crop((0, 0, picture.width, most))
        kept.quantize(palette=palette, dither=Image.Dither.NONE).save(file, optimize=True)
        if file.stat().st_size <= MOST_BYTES:
            return
        most = most * 9 // 10  # the end of a long page can be spared


def _palette(picture: Image.Image) -> Image.Image:
    """256 colours: the commonest as they are, which grounds and badges are, and others that come near all the rest."""
    counts = picture.getcolors(picture.width * picture.height) or []
    common = [colour for _, colour in sorted(counts, reverse=True, key=lambda one: one[0])[:128]]
    near = picture.quantize(128).getpalette() or []
    palette = Image.new("P", (1, 1))
    palette.putpalette([part for colour in common for part in cast(tuple[int, ...], colour)] + near)
    return palette


if __name__ == "__main__":
    sys.exit(main())
