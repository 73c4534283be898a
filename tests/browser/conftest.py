"""A real browser on a service that is served on loopback."""

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright
from werkzeug.serving import make_server

from tests.unit.services.dashboard.full_service import Service, fill, service

PATIENCE_MS = 120_000  # within which what is waited for comes, on however slow a machine
expect.set_options(timeout=PATIENCE_MS)

CHROMIUM = Path("/usr/bin/chromium")
QUIET = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not installed")
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-quic", *QUIET]
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield opened
        opened.close()


@dataclass
class Site:
    """A filled service with its address, and an admin's and a researcher's token."""

    made: Service
    ids: dict[str, str]
    url: str
    admin: str
    ada: str


@pytest.fixture(scope="session")
def filled_home(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    home = tmp_path_factory.mktemp("filled")
    with service(home) as made:
        return home, fill(made)


@pytest.fixture
def site(tmp_path: Path, filled_home: tuple[Path, dict[str, str]]) -> Iterator[Site]:
    home, ids = filled_home
    shutil.copytree(home, tmp_path, dirs_exist_ok=True)
    with service(tmp_path) as made:
        server = make_server("127.0.0.1", 0, made.app, threaded=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            tokens = made.token("root", "admin")[1], made.token("ada")[1]
            yield Site(made, ids, f"http://127.0.0.1:{server.server_port}", *tokens)
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


@dataclass
class Visit:
    """A page, with every request that it made and everything that went wrong in it."""

    page: Page
    requests: list[str] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)

    def sign_in(self, site: Site, secret: str) -> None:
        self.page.goto(f"{site.url}/login?next=/jobs")
        self.page.get_by_label("Access token").fill(secret)
        self.page.get_by_role("button", name="Sign in").click()
        self.page.wait_for_url(f"{site.url}/jobs")  # "**/jobs" would be the page for signing in, too


@contextmanager
def visit(browser: Browser, scheme: Literal["light", "dark"] = "light", width: int = 1280) -> Iterator[Visit]:
    """A fresh visit; nothing of it stays open."""
    context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 850})
    context.set_default_timeout(PATIENCE_MS)
    try:
        seen = Visit(context.new_page())
        seen.page.on("request", lambda request: seen.requests.append(request.url))
        seen.page.on("pageerror", lambda error: seen.troubles.append(str(error)))
        seen.page.on("console", lambda said: _note(seen, said))
        yield seen
    finally:
        context.close()


def _note(seen: Visit, said: Any) -> None:
    if said.type in ("error", "warning"):
        seen.troubles.append(said.text)


@pytest.fixture
def visitor(browser: Browser) -> Iterator[Visit]:
    """A visit by day, on a wide screen."""
    with visit(browser) as seen:
        yield seen
