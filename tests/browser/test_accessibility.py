"""axe-core finds nothing on any page, by day and by night, wide and narrow."""

from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser

from tests.browser.conftest import Site, visit
from tests.unit.services.dashboard.full_service import LONG_NAME

RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}


def _pages(site: Site) -> list[str]:
    several = f"job={site.ids['succeeded']}&job={site.ids['fold']}"
    cell = f"/jobs/{site.ids['succeeded']}/cell?truth=nv&predicted=nv"
    paths = ["/overview", "/jobs", f"/jobs?open={site.ids['cross_validate']}", "/datasets", "/workers", "/no-such-page"]
    paths += ["/datasets/new", "/datasets/lesions-id"]
    paths += ["/submit", "/submit?kind=study", f"/submit?clone={site.ids['succeeded']}", f"/compare?{several}", cell]
    paths += ["/models", "/models?q=nothing", "/models/lesions", f"/models/{LONG_NAME}"]
    paths += [f"/models/new?job={site.ids['fold']}"]
    return [*paths, *(f"/jobs/{job_id}" for job_id in site.ids.values())]


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_axe_finds_no_violation_on_any_page(site: Site, browser: Browser, scheme: Any, width: int) -> None:
    found: dict[str, Any] = {}
    with visit(browser, scheme, width) as visitor:
        visitor.page.goto(f"{site.url}/login")
        found["/login"] = _violations(visitor.page)
        visitor.sign_in(site, site.admin)
        for path in _pages(site):
            visitor.page.goto(f"{site.url}{path}")
            visitor.page.wait_for_load_state("load")
            found[path] = _violations(visitor.page)
            assert visitor.page.evaluate("document.documentElement.scrollWidth") <= width, path
        assert [url for url in visitor.requests if not url.startswith((f"{site.url}/", "data:"))] == []
    assert {path: told for path, told in found.items() if told} == {}


def _violations(page: Any) -> list[str]:
    told = Axe().run(page, options=RULES).response["violations"]
    return [f"{one['id']}: {node['target']} {node['html'][:120]}" for one in told for node in one["nodes"]]
