"""The dashboard as a person meets it, in chromium."""

import re

import pytest
from playwright.sync_api import Browser, Locator, expect

from services import jobs, views
from services.claims import Batch, Lease
from services.tokens import Principal
from tests.browser.conftest import Site, Visit, visit

ADMIN = Principal("root", "admin")
PAGES = ["/overview", "/jobs", "/datasets", "/models", "/models/lesions", "/workers"]


def _progress(site: Site, fraction: float, epoch: int) -> None:
    values = {"fraction": fraction, "step": epoch * 20, "steps": 600, "epoch": epoch, "epochs": 30, "eta_seconds": 60}
    logs = [("info", f"hello from epoch {epoch}")]
    metrics = [{"step": epoch * 20, "epoch": epoch, "name": "validation_balanced_accuracy", "value": 0.777}]
    batch = Batch(progress={**values, "message": ""}, logs=logs, metrics=metrics)
    jobs.renew(site.made.context.database, Lease(site.ids["running"], 1), 3600, batch)


def _all_pages(site: Site) -> list[str]:
    return [f"{site.url}{path}" for path in [*PAGES, *(f"/jobs/{job_id}" for job_id in site.ids.values())]]


def test_one_signs_in_finds_a_job_and_signs_out_with_the_keyboard_alone(site: Site, visitor: Visit) -> None:
    page = visitor.page
    page.goto(f"{site.url}/jobs?state=running")
    expect(page.get_by_label("Access token")).to_be_focused()
    page.keyboard.type(site.ada)
    page.keyboard.press("Enter")
    page.wait_for_url("**/jobs?state=running")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    link = page.get_by_role("link", name="BGPANet micro, long run")
    _tab_to(visitor, link)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("BGPANet micro, long run")
    _tab_to(visitor, page.get_by_role("button", name="Sign out"))
    page.keyboard.press("Enter")
    page.wait_for_url("**/login")


def _tab_to(visitor: Visit, target: Locator, most: int = 40) -> None:
    for _ in range(most):
        visitor.page.keyboard.press("Tab")
        if target.evaluate("element => element === document.activeElement"):
            return
    raise AssertionError(f"the keyboard does not reach {target}")


def test_the_list_follows_a_jobs_progress_and_keeps_focus_and_page(site: Site, visitor: Visit) -> None:
    visitor.sign_in(site, site.admin)
    page = visitor.page
    page.evaluate("window.untouched = true")
    row = page.locator(f"#job-{site.ids['running']}")
    expect(row).to_contain_text("40 %")
    link = row.get_by_role("link")
    link.focus()
    _progress(site, 0.61, 19)
    expect(row).to_contain_text("61 %")
    expect(row).to_contain_text("epoch 19 of 30")
    expect(row.get_by_role("progressbar")).to_have_js_property("value", 0.61)
    made = site.made.submit(name="a new one", user="root")
    expect(page.get_by_role("link", name="a new one")).to_be_visible()
    expect(link).to_be_focused()
    jobs.cancel(site.made.context.database, made)
    jobs.fail(site.made.context.database, Lease(site.ids["running"], 1), "stalled", "silent")
    expect(row).to_contain_text("failed")
    expect(page.locator("#announcer")).to_contain_text("BGPANet micro, long run: failed")
    expect(link).to_be_focused()
    assert page.evaluate("window.untouched") is True
    assert visitor.troubles == []


def test_nobody_asks_again_when_nothing_runs(site: Site, visitor: Visit) -> None:
    visitor.sign_in(site, site.admin)
    page = visitor.page
    page.goto(f"{site.url}/jobs/{site.ids['running']}")
    jobs.finish(site.made.context.database, Lease(site.ids["running"], 1), {}, [])
    expect(page.locator("#head .badge").first).to_have_text("succeeded")
    for address in (page.url, f"{site.url}/jobs/{site.ids['succeeded']}"):
        if page.url != address:
            page.goto(address)
        expect(page.locator("#curves .main-svg").first).to_be_attached()
        page.wait_for_load_state("networkidle")
        for _ in range(20):  # the last round, which a slow machine draws for a while
            visitor.requests.clear()
            page.wait_for_timeout(4000)
            if not visitor.requests:
                break
        page.wait_for_timeout(4000)
        assert visitor.requests == [], address


def test_a_running_jobs_page_follows_progress_log_curves_and_end(site: Site, visitor: Visit) -> None:
    visitor.sign_in(site, site.admin)
    page = visitor.page
    page.goto(f"{site.url}/jobs/{site.ids['running']}")
    page.evaluate("window.untouched = true")
    curves = page.locator("#chart-accuracy figcaption")
    expect(curves).to_contain_text("at step 240")
    page.get_by_text("All fields", exact=True).click()
    _progress(site, 0.5, 15)
    expect(page.locator("#head")).to_contain_text("50 % · epoch 15 of 30")
    expect(page).to_have_title(re.compile("^50 % "))
    expect(page.get_by_text("hello from epoch 15")).to_have_count(1)
    expect(curves).to_contain_text("0.777 at step 300")
    jobs.finish(site.made.context.database, Lease(site.ids["running"], 1), {"synthetic": True}, [])
    expect(page.locator("#head .badge").first).to_have_text("succeeded")
    expect(page.get_by_role("button", name="Cancel")).to_have_count(0)
    expect(page.locator(".spec")).to_be_visible()
    assert page.evaluate("window.untouched") is True
    assert visitor.troubles == []


def test_curves_and_confusion_matrix_are_drawn(site: Site, visitor: Visit) -> None:
    visitor.sign_in(site, site.admin)
    page = visitor.page
    page.goto(f"{site.url}/jobs/{site.ids['succeeded']}")
    for chart, lines in {"accuracy": 1, "loss": 2, "rate": 1, "weights": 2}.items():
        paths = page.locator(f"#chart-{chart} .scatterlayer path.js-line")
        expect(paths).to_have_count(lines)
        for path in paths.all():
            assert re.fullmatch(r"M[\d.,-]+([LHV][\d.,-]+)+", path.get_attribute("d") or "")
    widths = page.locator("#curves .plot").evaluate_all(
        "plots => plots.map(p => [p.clientWidth, p.querySelector('.main-svg').clientWidth])"
    )
    assert all(abs(place - drawn) <= 1 for place, drawn in widths), widths
    matrix = page.get_by_role("table", name=re.compile("Rows: the true class"))
    expect(matrix.locator("td.cell")).to_have_count(49)
    expect(matrix.get_by_role("rowheader")).to_have_text(["akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"])
    page.goto(f"{site.url}/jobs/{site.ids['cross_validate']}")
    expect(page.locator("#chart-accuracy .scatterlayer path.js-line")).to_have_count(5)


def test_a_bar_appears_when_jobs_are_selected_and_compares_them(site: Site, visitor: Visit) -> None:
    visitor.sign_in(site, site.admin)
    page, bar = visitor.page, visitor.page.get_by_role("form", name="Selected jobs")
    expect(bar).to_be_hidden()
    page.get_by_label("Select BGPANet micro, first look").press("Space")
    expect(bar).to_contain_text("1 selected")
    expect(bar.get_by_role("button", name="compare")).to_be_disabled()
    page.get_by_label("Select inference").press("Space")
    expect(bar).to_contain_text("2 selected")
    bar.get_by_role("button", name="compare").press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Compare")
    assert visitor.troubles == []


def test_cancel_asks_a_running_job_to_end(site: Site, visitor: Visit) -> None:
    visitor.sign_in(site, site.ada)
    page = visitor.page
    page.goto(f"{site.url}/jobs/{site.ids['running']}")
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_text("Asked to cancel")).to_be_visible()
    orders = jobs.renew(site.made.context.database, Lease(site.ids["running"], 1), 3600)
    assert orders.cancel
    jobs.confirm_cancel(site.made.context.database, Lease(site.ids["running"], 1))
    expect(page.locator("#head .badge").first).to_have_text("cancelled")
    job = views.get_job(site.made.context.database, ADMIN, site.ids["running"])
    assert job["state"] == "cancelled"


def test_a_file_of_the_result_downloads(site: Site, visitor: Visit) -> None:
    visitor.sign_in(site, site.admin)
    visitor.page.goto(f"{site.url}/jobs/{site.ids['succeeded']}")
    with visitor.page.expect_download() as download:
        visitor.page.get_by_role("link", name="report.json").click()
    assert download.value.path().read_bytes() == b'{"a": 1}'


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 1280), ("dark", 390)])
def test_no_page_talks_to_another_host_complains_or_is_wider_than_the_screen(
    site: Site, browser: Browser, scheme: str, width: int
) -> None:
    with visit(browser, "dark" if scheme == "dark" else "light", width) as visitor:
        visitor.sign_in(site, site.admin)
        for address in _all_pages(site):
            visitor.page.goto(address)
            visitor.page.wait_for_load_state("networkidle" if "/jobs/" in address else "load")
            assert visitor.page.evaluate("document.documentElement.scrollWidth") <= width, address
        assert [url for url in visitor.requests if not url.startswith((f"{site.url}/", "data:"))] == []
        assert visitor.troubles == []
        assert any("plotly" in url for url in visitor.requests)


def test_a_script_in_a_jobs_name_stays_text(site: Site, visitor: Visit) -> None:
    visitor.page.on("dialog", lambda dialog: visitor.troubles.append(dialog.message))
    visitor.sign_in(site, site.admin)
    expect(visitor.page.get_by_role("link", name="<script>alert(1)</script>")).to_be_visible()
    visitor.page.goto(f"{site.url}/jobs/{site.ids['queued']}")
    expect(visitor.page.get_by_role("heading", level=1)).to_have_text("<script>alert(1)</script>")
    _progress(site, 0.5, 15)
    visitor.page.goto(f"{site.url}/jobs/{site.ids['running']}")
    expect(visitor.page.get_by_text("a line with <script>alert(1)</script> & more")).to_be_visible()
    assert visitor.troubles == []


CONTRAST = """() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", {willReadFrequently: true});
  const solid = (colour, under) => {
    canvas.fillStyle = `rgb(${under})`; canvas.fillRect(0, 0, 1, 1);
    canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = (rgb) => rgb.map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, k) => sum + v * [0.2126, 0.7152, 0.0722][k], 0);
  const behind = (element) => {
    const under = element ? behind(element.parentElement) : [255, 255, 255];
    return element ? solid(getComputedStyle(element).backgroundColor, under) : under;
  };
  const faint = [];
  for (const element of document.querySelectorAll("main *, header *, footer *")) {
    const own = [...element.childNodes].some(n => n.nodeType === 3 && n.data.trim());
    if (!own || !element.checkVisibility() || element.closest("svg, .hidden-text, .skip, option")) continue;
    const ground = behind(element), text = solid(getComputedStyle(element).color, ground);
    const [low, high] = [light(text), light(ground)].sort((a, b) => a - b);
    const ratio = (high + 0.05) / (low + 0.05);
    if (ratio < 4.5) faint.push(`${ratio.toFixed(2)} ${element.tagName}.${element.className} ${element.innerText}`);
  }
  return [faint, light(behind(document.body))];
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable_by_day_and_by_night(site: Site, browser: Browser, scheme: str) -> None:
    """Contrast of all text is at least 4.5 to 1 (WCAG 2.2, 1.4.3), and the dark page is dark."""
    with visit(browser, "dark" if scheme == "dark" else "light") as visitor:
        visitor.sign_in(site, site.admin)
        visitor.page.route("**/vendor/*", lambda route: route.fulfill(body=""))  # text in curves is not looked at
        for address in _all_pages(site):
            visitor.page.goto(address)
            faint, page_light = visitor.page.evaluate(CONTRAST)
            assert faint == [], address
            assert page_light < 0.05 if scheme == "dark" else page_light > 0.8
