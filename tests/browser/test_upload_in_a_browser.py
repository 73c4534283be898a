"""An archive that is dropped on the page for registering arrives whole, over breaks of the line, and on from where it
was stopped."""

import hashlib
import os
import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Route, expect

from services import uploads
from tests.browser.conftest import Site, visit

PARTS = 8
PART = 100_000
DROP = """
async ([bytes, name]) => {
  const carried = new DataTransfer();
  carried.items.add(new File([new Uint8Array(bytes)], name));
  document.getElementById("drop").dispatchEvent(new DragEvent("drop", { dataTransfer: carried, bubbles: true }));
}
"""


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(uploads, "PART_BYTES", PART)
    file = tmp_path / "skin lesions (2026).zip"
    file.write_bytes(os.urandom(PARTS * PART - 1234))
    return file


def test_an_archive_is_sent_over_breaks_of_the_line_and_registered(site: Site, browser: Browser, archive: Path) -> None:
    broken: list[str] = []
    sent: list[str] = []

    def breaks(route: Route) -> None:
        sent.append(route.request.url)
        if "/parts/3?" in sent[-1] and len(broken) < 2:
            broken.append(route.request.url)
            route.abort()
        else:
            route.fallback()

    with visit(browser, "light", 1280) as visitor:
        visitor.sign_in(site, site.ada)
        page = visitor.page
        page.goto(f"{site.url}/datasets/new")
        page.route("**/parts/*", breaks)
        page.evaluate(DROP, [list(archive.read_bytes()), archive.name])
        expect(page.locator("#drop b")).to_have_text("skin lesions (2026).zip, 798.8 kB")
        assert page.get_by_label("Name").input_value() == "skin-lesions-2026-"
        page.get_by_role("button", name="Register").click()
        page.wait_for_url(re.compile("/datasets/[0-9a-f-]{36}$"))
        assert [told for told in visitor.troubles if "net::ERR" not in told] == []
    assert len(broken) == 2
    assert len(sent) == PARTS + 2
    assert _stored(site) == hashlib.sha256(archive.read_bytes()).hexdigest()


def test_an_upload_that_was_stopped_goes_on_with_the_same_file(site: Site, browser: Browser, archive: Path) -> None:
    before: list[str] = []
    after: list[str] = []
    stopped = False

    def holds(route: Route) -> None:
        (after if stopped else before).append(urlsplit(route.request.url).path.rpartition("/")[2])
        if stopped or before[-1] != "5":  # which is never answered before it is stopped
            route.fallback()

    with visit(browser, "dark", 390) as visitor:
        visitor.sign_in(site, site.ada)
        page = visitor.page
        page.goto(f"{site.url}/datasets/new")
        page.route("**/parts/*", holds)
        page.locator("#file").set_input_files(archive)
        page.get_by_role("button", name="Register").click()
        expect(page.locator("#sending p")).to_contain_text("400.0 kB of 798.8 kB")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.get_by_role("button", name="Stop").click()
        expect(page.get_by_role("alert")).to_contain_text("Stopped.")
        stopped = True
        page.get_by_role("button", name="Register").click()
        page.wait_for_url(re.compile("/datasets/[0-9a-f-]{36}$"))
    assert before[:4] == ["1", "2", "3", "4"]
    assert after == ["5", "6", "7", "8"]
    assert _stored(site) == hashlib.sha256(archive.read_bytes()).hexdigest()


def _stored(site: Site) -> str:
    """The digest of what the store has of the one upload."""
    (page,) = [page for page in site.made.context.store.pages("uploads/") if page]
    (file,) = page
    with site.made.context.store.open(file.key) as stream:
        return hashlib.sha256(stream.read()).hexdigest()
