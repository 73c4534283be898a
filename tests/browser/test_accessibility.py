"""axe-core finds nothing on any page, by day and by night, wide and narrow."""

from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser

from services import projects, webhooks
from services.projects import NewProject
from services.tokens import Principal
from services.webhooks import NewWebhook
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
    paths += ["/settings/tokens?all=1", "/settings/projects", "/settings/projects/derma", "/settings/webhooks"]
    paths += [f"/settings/webhooks/{_furnish(site)}", "/settings/audit", "/settings/audit?since=never&user=nobody"]
    return [*paths, *(f"/jobs/{job_id}" for job_id in site.ids.values())]


def _furnish(site: Site) -> str:
    """A project, and a webhook that was told something. Returns the webhook's id."""
    database, root = site.made.context.database, Principal("root", "admin")
    projects.create(database, root, NewProject("derma", "Dermoscopy study"))
    projects.put_member(database, root, "derma", "ada", "viewer")
    made, _ = webhooks.create(database, root, NewWebhook("https://lab.example.org/hook", ["failed"]), ())
    webhooks.ping(database, root, made["id"])
    return str(made["id"])


def _after_forms(page: Any, url: str) -> dict[str, list[str]]:
    """What is found on pages that answer a form: what was wrong, a secret, whether the trail holds."""
    found = {}
    for name, told in (
        (" ", page.locator("[aria-invalid=true]")),
        ("nightly", page.get_by_role("region", name="The token's secret")),
    ):
        page.goto(f"{url}/settings/tokens")
        page.get_by_text("Revoke…").first.click()
        page.get_by_label("Name").fill(name)
        page.get_by_role("button", name="Make the token").click()
        told.first.wait_for()
        page.wait_for_load_state()
        found[f"a token named {name!r}"] = _violations(page)
    page.goto(f"{url}/settings/audit")
    page.get_by_role("button", name="Verify").click()
    page.get_by_text("The trail holds.").wait_for()
    return {**found, "verified": _violations(page)}


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
        found |= _after_forms(visitor.page, site.url)
        assert [url for url in visitor.requests if not url.startswith((f"{site.url}/", "data:"))] == []
    assert {path: told for path, told in found.items() if told} == {}


def _violations(page: Any) -> list[str]:
    told = Axe().run(page, options=RULES).response["violations"]
    return [f"{one['id']}: {node['target']} {node['html'][:120]}" for one in told for node in one["nodes"]]
