"""Settings as a person meets them, in chromium: a token from its making to its end."""

import re

from playwright.sync_api import Browser, expect

from services import tokens
from tests.browser.conftest import PATIENCE_MS, Site, Visit, visit

SECRET = re.compile(r"bgp_[\w-]{43}")


def test_a_token_is_made_shown_once_used_and_revoked(site: Site, visitor: Visit, browser: Browser) -> None:
    visitor.sign_in(site, site.ada)
    page = visitor.page
    page.get_by_role("link", name="Settings").click()
    page.wait_for_url("**/settings/tokens")
    page.get_by_label("Name").fill("nightly")
    page.get_by_role("button", name="Make the token").click()
    expect(page.get_by_role("heading", level=2)).to_have_text("The token nightly was made")
    secret = page.get_by_role("region", name="The token's secret").inner_text().strip()
    assert SECRET.fullmatch(secret)
    page.reload()
    expect(page.get_by_text("This token was made already.")).to_be_visible()
    assert page.url == f"{site.url}/settings/tokens"
    assert secret not in page.content()
    rows = [row for row in tokens.list_tokens(site.made.context.database, "ada") if row["name"] == "nightly"]
    assert len(rows) == 1, "loading the page again makes no second one"
    page.go_back()
    assert secret not in page.content()
    assert not [url for url in visitor.requests if secret in url]
    with visit(browser) as other:
        other.sign_in(site, secret)
        page.goto(f"{site.url}/settings/tokens")
        row = page.locator(f"#token-{rows[0]['id']}")
        row.get_by_text("Revoke…").click()
        row.get_by_role("button", name="Revoke it").click()
        expect(page.get_by_text("It was revoked.")).to_be_visible()
        expect(row).to_have_count(0)
        other.page.goto(f"{site.url}/jobs")
        expect(other.page.get_by_label("Access token")).to_be_visible()
    assert visitor.troubles == []


def test_a_token_is_made_and_revoked_without_scripts(site: Site, browser: Browser) -> None:
    context = browser.new_context(java_script_enabled=False)
    context.set_default_timeout(PATIENCE_MS)
    try:
        page = context.new_page()
        page.goto(f"{site.url}/login?next=/settings/tokens")
        page.get_by_label("Access token").fill(site.ada)
        page.get_by_role("button", name="Sign in").click()
        page.get_by_label("Name").fill("plain")
        page.get_by_role("button", name="Make the token").click()
        expect(page.get_by_role("region", name="The token's secret")).to_have_text(SECRET)
        page.get_by_role("link", name="To all tokens").click()
        row = page.get_by_role("row", name=re.compile("^plain"))
        button = row.get_by_role("button", name="Revoke it")
        expect(button).not_to_be_visible()
        row.get_by_text("Revoke…").click()
        button.click()
        expect(row).to_have_count(0)
    finally:
        context.close()
    (held,) = [row for row in tokens.list_tokens(site.made.context.database, "ada") if row["name"] == "plain"]
    assert held["revoked_at"] is not None


def test_settings_need_no_more_than_a_phone_and_no_other_host(site: Site, browser: Browser) -> None:
    tokens.create(site.made.context.database, "a-name-that-can-not-be-broken-" * 6, "ada", "researcher")
    with visit(browser, "dark", 390) as visitor:
        visitor.sign_in(site, site.admin)
        for name in ("tokens", "projects", "webhooks", "audit"):
            visitor.page.goto(f"{site.url}/settings/{name}")
            assert visitor.page.evaluate("document.documentElement.scrollWidth") <= 390, name
        assert [url for url in visitor.requests if not url.startswith((f"{site.url}/", "data:"))] == []
        assert visitor.troubles == []
