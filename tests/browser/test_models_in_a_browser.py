"""A trained model's page in chromium, with a worker that answers: images are dropped on it, and bars are seen."""

import base64
import io
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page, Route, expect
from werkzeug.serving import make_server

from bgpanet.data import synthetic
from services import models, submission, tokens, views
from services.models import Wanted
from services.settings import Settings
from services.submission import Request
from services.web import create_app
from tests.browser.conftest import PATIENCE_MS, Visit
from tests.support.cluster import ADMIN, Process, cluster, tiny_spec
from tests.support.registering import register

DROP = """(place, files) => {
  const carried = new DataTransfer();
  for (const [name, content] of files) {
    const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
    carried.items.add(new File([bytes], name, { type: "image/png" }));
  }
  for (const type of ["dragenter", "dragover", "drop"]) {
    place.dispatchEvent(new DragEvent(type, { dataTransfer: carried, bubbles: true, cancelable: true }));
  }
}"""


@dataclass
class Product:
    """What runs: its address, a token, and the worker that answers."""

    url: str
    token: str
    worker: Process


@pytest.fixture
def product(tmp_path: Path, valkey_url: str) -> Iterator[Product]:
    """API, dashboard and one worker, with a trained model `spots`."""
    home = tmp_path / "home"
    settings = Settings(home, f"sqlite:///{home / 'b.db'}", valkey_url, (home / "artifacts").as_uri())
    with cluster(settings, tmp_path) as made:
        synthetic.draw(tmp_path / "lesions", lesions=40, seed=3)
        register(made.context, "lesions", tmp_path / "lesions")
        worker = made.worker("only")
        job, _ = submission.submit(made.context, ADMIN, Request(kind="train", dataset="lesions", spec=tiny_spec(2)))

        def ended() -> bool | None:
            return views.get_job(made.context.database, ADMIN, job["id"])["state"] in ("succeeded", "failed") or None

        made.until(ended, "the training has ended", 600)
        models.register(made.context, ADMIN, Wanted("spots", job["id"], "champion"))
        server = make_server("127.0.0.1", 0, create_app(made.context.settings), threaded=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            secret = tokens.create(made.context.database, "test", ADMIN.user, "admin")[1]
            yield Product(f"http://127.0.0.1:{server.server_port}", secret, worker)
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


def picture() -> bytes:
    """An image of one colour, as PNG."""
    file = io.BytesIO()
    Image.new("RGB", (90, 60), (200, 150, 140)).save(file, "PNG")
    return file.getvalue()


def drop(page: Page, **files: bytes) -> None:
    """Lets files fall on the place for them."""
    carried = [[f"{name}.png", base64.b64encode(content).decode()] for name, content in files.items()]
    page.locator("#drop").evaluate(DROP, carried)


def is_first(route: Route, held: list[Route]) -> bool:
    """Whether it sends the first images."""
    return route.request.method == "POST" and not held


def the_one(page: Page, held: list[Route]) -> Route:
    """What is held, which is seen here a little later than what the page says meanwhile."""
    for _ in range(PATIENCE_MS // 50):
        if held:
            return held[0]
        page.wait_for_timeout(50)
    raise AssertionError("the page sends no images")


def widths(page: Page) -> list[float]:
    """Of the bars, as shares of the place that they have."""
    bars = page.locator("[data-number='0'] .bars span")
    shares: list[float] = bars.evaluate_all("bars => bars.map((b) => b.clientWidth / b.parentElement.clientWidth)")
    return shares


@pytest.mark.timeout(1800)
def test_an_image_that_is_dropped_on_a_model_is_answered_with_bars(
    product: Product, visitor: Visit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.dashboard.trying.SECONDS", 600)
    page = visitor.page
    page.goto(f"{product.url}/login?next=/models")
    page.get_by_label("Access token").fill(product.token)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("link", name="spots").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("spots version 1")
    expect(page.get_by_text("For research, no diagnosis").first).to_be_visible()

    page.get_by_label("Show what it looked at").check()
    held: list[Route] = []
    page.route("**/models/**", lambda route: (held.append if is_first(route, held) else Route.fallback)(route))
    drop(page, one=picture(), broken=b"no image")
    expect(page.get_by_text("Waiting for a worker to look at 2 images: ")).to_be_visible()
    the_one(page, held).fallback()  # so long nobody can have answered
    first, second = page.locator("[data-number='0']"), page.locator("[data-number='1']")
    expect(first.get_by_role("heading")).to_have_text("one.png")
    expect(first.get_by_role("rowheader")).to_have_count(7)
    assert 0.8 < sum(widths(page)) < 1.2, "bars are as long as the probabilities, which sum to one"
    expect(first.get_by_role("img", name="What it looked at in one.png")).to_be_visible()
    expect(first.get_by_role("img", name="The image one.png")).to_be_visible()
    expect(second.get_by_text("is no image that could be used")).to_be_visible()
    expect(page.locator("#waiting")).to_be_hidden()
    expect(page.locator("#announcer")).to_have_text("2 images: answered")

    # The keyboard alone: a file, and Enter on the button.
    page.get_by_label("Show what it looked at").uncheck()
    chosen = {"name": "two.png", "mimeType": "image/png", "buffer": picture()}
    page.locator("#images").set_input_files(chosen)  # type: ignore[arg-type]
    page.get_by_role("button", name="Try").press("Enter")
    expect(first.get_by_role("heading")).to_have_text("two.png")
    expect(first.get_by_role("img")).to_have_count(1)

    drop(page, **{f"image-{number}": picture() for number in range(17)})
    expect(page.get_by_role("alert")).to_contain_text("These are 17 images; 16 at most")
    assert visitor.troubles == []

    product.worker.kill()
    monkeypatch.setattr("services.dashboard.trying.SECONDS", 1)
    drop(page, three=picture())
    expect(page.get_by_role("alert")).to_contain_text("within 1 s; try again, or submit a job, which waits")
    assert [url for url in visitor.requests if not url.startswith((f"{product.url}/", "data:"))] == []
