"""The page of a run that has said a hundred thousand figures, and that somebody leaves open for long."""

import re
from typing import Any

from playwright.sync_api import Page, expect
from sqlalchemy import insert

from services.tables import Metric
from tests.browser.conftest import Site, Visit

STEPS = 25_000
SERIES = ("train_loss", "learning_rate", "loss_weight_ce", "loss_weight_focal")
MOST_DRAWN = 9000  # points; what a browser draws without a pause
ROUNDS = 40


def _say_much(site: Site, job_id: str) -> None:
    """Figures of 25,000 steps more, from where the run is."""
    for name in SERIES:
        rows = [
            {"job_id": job_id, "name": name, "step": step, "epoch": step // 500, "value": 1 / step}
            for step in range(1000, 1000 + STEPS)
        ]
        with site.made.context.database.write() as session:
            session.execute(insert(Metric), rows)


def test_the_page_of_a_hundred_thousand_figures_draws_few_of_them(site: Site, visitor: Visit) -> None:
    _say_much(site, site.ids["succeeded"])
    visitor.sign_in(site, site.admin)
    page, curves = visitor.page, re.compile(r"/curves\?")
    with page.expect_response(curves) as plain:
        page.goto(f"{site.url}/jobs/{site.ids['succeeded']}")
    expect(page.locator("#chart-loss figcaption")).to_contain_text(f"at step {999 + STEPS}")
    with page.expect_response(curves) as smooth:
        page.get_by_label("Smoothing").select_option("much")
    expect(page.locator("#chart-loss .scatterlayer path.js-line")).to_have_count(4)
    drawn = page.evaluate(
        "[...document.querySelectorAll('.plot')].flatMap(p => p.data).reduce((n, line) => n + line.x.length, 0)"
    )
    assert STEPS / 50 < drawn <= MOST_DRAWN
    sizes = [len(answer.value.body()) for answer in (plain, smooth)]
    assert 0 < min(sizes) <= max(sizes) < 300_000, sizes
    assert visitor.troubles == []


def test_lines_are_switched_off_and_on_with_the_keyboard(site: Site, visitor: Visit) -> None:
    visitor.sign_in(site, site.admin)
    page = visitor.page
    page.goto(f"{site.url}/jobs/{site.ids['succeeded']}")
    key, lines = page.get_by_role("button", name="validation"), page.locator("#chart-loss .scatterlayer path.js-line")
    expect(lines).to_have_count(2)
    for number, pressed in ((1, "false"), (2, "true")):
        key.focus()
        page.keyboard.press("Enter")
        expect(lines).to_have_count(number)
        expect(key).to_have_attribute("aria-pressed", pressed)
        expect(key).to_be_focused()


def test_a_page_that_stays_open_does_not_grow(site: Site, visitor: Visit) -> None:
    """Nodes, listeners and heap after many rounds of news are what they were after a few."""
    visitor.sign_in(site, site.admin)
    page = visitor.page
    page.goto(f"{site.url}/jobs/{site.ids['running']}")
    expect(page.locator("#curves .main-svg").first).to_be_attached()
    _rounds(page, 5)
    before = _weight(page)
    _rounds(page, ROUNDS)
    after = _weight(page)
    for _ in range(30):  # what is still drawn, or freed a little later, is no growth
        if not _grown(before, after):
            break
        page.wait_for_timeout(1000)
        after = _weight(page)
    assert _grown(before, after) == [], (before, after)
    assert visitor.troubles == []


def _rounds(page: Page, rounds: int) -> None:
    """So many times: news of the job, and its curves drawn anew."""
    for number in range(rounds):
        with page.expect_response(re.compile("/logs")), page.expect_response(re.compile("/curves")):
            value = ("0.6", "0")[number % 2]
            page.evaluate("document.dispatchEvent(new Event('news'))")
            page.get_by_label("Smoothing").select_option(value)
    page.wait_for_timeout(500)


def _grown(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What there is more of than a page at rest may differ by."""
    most = {
        "nodes": before["nodes"] * 1.1 + 200,
        "listeners": before["listeners"] * 1.1 + 50,
        "heap": before["heap"] + 4_000_000,
    }
    return [name for name in most if after[name] >= most[name]]


def _weight(page: Page) -> dict[str, Any]:
    """What the page holds after all garbage is gone."""
    session = page.context.new_cdp_session(page)
    session.send("HeapProfiler.collectGarbage")
    held = session.send("Memory.getDOMCounters")
    heap = session.send("Runtime.getHeapUsage")["usedSize"]
    session.detach()
    return {"nodes": held["nodes"], "listeners": held["jsEventListeners"], "heap": heap}
