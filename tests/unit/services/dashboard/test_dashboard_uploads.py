"""A file that the page for registering sends in parts, as its script does."""

import hashlib
from typing import Any

import pytest
from flask.testing import FlaskClient

from services import uploads, views
from services.tokens import Principal
from tests.unit.services.dashboard.browsing import csrf_of
from tests.unit.services.dashboard.conftest import SignIn
from tests.unit.services.dashboard.full_service import Service

ADA = Principal("ada", "researcher")
PART = 3_000_000  # more than other bodies may have
CONTENT = bytes(range(256)) * (2 * PART // 256 + 10)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Page:
    """The page's script."""

    def __init__(self, client: FlaskClient) -> None:
        self.client, self.csrf = client, csrf_of(client.get("/datasets/new"))

    def begin(self, **changes: str) -> Any:
        form = {"name": "a.zip", "size": str(len(CONTENT)), "sha256": sha256(CONTENT), "csrf": self.csrf}
        return self.client.post("/datasets/uploads", data={**form, **changes})

    def put(self, upload: str, number: int, content: bytes, digest: str = "", csrf: str | None = None) -> Any:
        place = f"/datasets/uploads/{upload}/parts/{number}?sha256={digest or sha256(content)}"
        return self.client.put(place, data=content, headers={"X-CSRF": self.csrf if csrf is None else csrf})

    def complete(self, upload: str) -> Any:
        return self.client.post(f"/datasets/uploads/{upload}/complete", data={"csrf": self.csrf})


@pytest.fixture
def page(sign_in: SignIn, monkeypatch: pytest.MonkeyPatch) -> Page:
    monkeypatch.setattr(uploads, "PART_BYTES", PART)
    return Page(sign_in("ada", "researcher"))


def parts() -> list[bytes]:
    return [CONTENT[first : first + PART] for first in range(0, len(CONTENT), PART)]


def test_a_file_arrives_in_parts_goes_on_where_it_was_cut_off_and_becomes_a_data_set(made: Service, page: Page) -> None:
    begun = page.begin()
    assert (begun.status_code, begun.json["parts"], begun.json["received"]) == (200, 3, [])
    upload = begun.json["id"]
    assert page.put(upload, 2, parts()[1]).status_code == 204
    assert page.complete(upload).status_code == 409
    again = page.begin()
    assert (again.json["id"], again.json["received"]) == (upload, [2])
    for number in (1, 3):
        assert page.put(upload, number, parts()[number - 1]).status_code == 204
    assert page.complete(upload).json["state"] == "complete"
    form = {"csrf": page.csrf, "name": "sent", "format": "folder", "place": upload}
    answer = page.client.post("/datasets/new", data=form)
    assert answer.status_code == 303
    data = views.get_dataset(made.context.database, ADA, answer.headers["Location"].rpartition("/")[2])
    assert (data["name"], data["state"]) == ("sent", "registering")


def test_what_another_site_sends_or_a_viewer_is_refused(made: Service, page: Page, sign_in: SignIn) -> None:
    upload = page.begin().json["id"]
    for csrf in ("", "0" * 43):
        assert page.put(upload, 1, parts()[0], csrf=csrf).status_code == 403
        assert page.begin(csrf=csrf).status_code == 403
    assert page.begin().json["received"] == []
    reading = sign_in("vera", "viewer")
    form = {"csrf": csrf_of(reading.get("/jobs")), "name": "a", "size": "4", "sha256": "0" * 64}
    assert reading.post("/datasets/uploads", data=form).status_code == 403


@pytest.mark.parametrize(
    "changes",
    [{"size": "-1"}, {"size": "0"}, {"size": "x"}, {"size": "9" * 15}, {"sha256": "0" * 63}, {"name": "a/b.zip"}],
)
def test_a_file_that_can_not_be_is_refused_in_words(page: Page, changes: dict[str, str]) -> None:
    answer = page.begin(**changes)
    assert (answer.status_code, next(iter(changes)) in answer.json["detail"]) == (422, True)


def test_a_part_that_is_not_what_was_announced_is_refused_and_nothing_of_it_kept(page: Page) -> None:
    upload = page.begin().json["id"]
    first = parts()[0]
    assert page.put(upload, 1, first, sha256(b"another")).status_code == 422
    assert page.put(upload, 1, first[:-1]).status_code == 422
    assert page.put(upload, 1, first + b"and more").status_code in (413, 422)
    assert page.put(upload, 4, first).status_code == 404
    assert page.put(upload, 1, first, "no digest").status_code == 422
    assert page.begin().json["received"] == []
