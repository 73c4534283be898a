"""Requests that are repeated, and those that never are, over a real line to the real API."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services import connection
from services.client import ApiError, Client
from services.client_errors import (
    Broken,
    Contradicted,
    Invalid,
    Missing,
    NotAllowed,
    TokenRefused,
    TooBusy,
    Unreachable,
    seconds_to_wait,
)
from services.connection import FIRST_DELAY, Connection, Limits
from tests.support.listening import Line, listening
from tests.unit.services.api.test_api import Api
from tests.unit.services.api.test_api import api as api  # a fixture

BUSY = "429 TOO MANY REQUESTS"


class Reached:
    """Ada's client, and the line that it speaks over."""

    def __init__(self, client: Client, line: Line, waits: list[float]) -> None:
        self.client, self.line, self.waits = client, line, waits

    def count(self, method: str) -> int:
        return len([asked for asked, _ in self.line.asked if asked == method])


@pytest.fixture
def reached(api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reached]:
    monkeypatch.setenv("BGPANET_HOME", str(tmp_path / "nobody"))
    waits: list[float] = []
    monkeypatch.setattr(connection, "sleep", waits.append)
    with listening(api.client.application) as (url, line), Client(url, api.tokens["ada"]) as client:
        yield Reached(client, line, waits)


def submitted(client: Client, **options: Any) -> str:
    return client.submit("train", dataset="lesions", spec={"model": "bgpanet_micro"}, **options).id


def test_what_is_read_is_asked_for_again_until_there_is_room_as_late_as_the_service_says(reached: Reached) -> None:
    reached.line.refuse(BUSY, times=2, Retry_After="7")
    assert list(reached.client.jobs()) == []
    assert (reached.count("GET"), reached.waits) == (3, [7, 7])


def test_waits_grow_and_are_drawn_so_that_many_clients_come_back_one_by_one(reached: Reached) -> None:
    waits = []
    for _ in range(20):
        reached.line.refuse("503 BUSY", times=4)
        reached.client.get("me")
        waits.append(reached.waits[-4:])
    for number, drawn in enumerate(zip(*waits, strict=True)):
        assert all(0.5 <= wait / (FIRST_DELAY * 2**number) <= 1.5 for wait in drawn)
        assert len(set(drawn)) > 10


def test_a_service_that_stays_busy_is_given_up_with_the_wait_that_it_asked_for(reached: Reached) -> None:
    reached.line.refuse(BUSY, times=9, Retry_After="40")
    with pytest.raises(TooBusy, match="try again in 40 s") as caught:
        reached.client.get("jobs")
    assert (reached.waits, caught.value.retry_after, caught.value.status) == ([40], 40, 429)


def test_a_submission_carries_a_key_and_is_repeated_and_made_once(reached: Reached, api: Api) -> None:
    reached.line.refuse("502 BAD GATEWAY", times=2)
    job_id = submitted(reached.client)
    assert reached.count("POST") == 3
    assert [job.id for job in reached.client.jobs()] == [job_id]


def test_a_post_without_a_key_is_never_repeated(reached: Reached) -> None:
    reached.line.refuse("502 BAD GATEWAY")
    with pytest.raises(Broken):
        reached.client.post("tokens", {"name": "x", "user": "ada"})
    assert (reached.count("POST"), reached.waits) == (1, [])


def test_what_comes_to_the_same_twice_is_repeated(reached: Reached) -> None:
    job = reached.client.job(submitted(reached.client))
    for act in (job.pause, job.pause, job.resume, lambda: job.set_priority(3), job.cancel, job.retry):
        before = len(reached.line.asked)
        reached.line.refuse("503 BUSY")
        act()
        assert len(reached.line.asked) == before + 2


def test_an_answer_that_is_lost_after_the_work_was_done_does_not_do_it_twice(reached: Reached, api: Api) -> None:
    made = iter([True])

    def lost(path: str, body: Iterator[bytes]) -> Iterator[bytes]:
        content = b"".join(body)
        if path.endswith("/jobs") and next(made, False):
            raise ConnectionResetError("the answer is lost")
        return iter([content])

    reached.line.cut = lost
    job_id = submitted(reached.client, idempotency_key="once")
    assert [job.id for job in reached.client.jobs()] == [job_id]
    assert submitted(reached.client, idempotency_key="once") == job_id


def test_where_nothing_listens_the_address_and_what_to_do_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(connection, "sleep", waits.append)
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # nobody else can listen there meanwhile
        address = f"http://127.0.0.1:{held.getsockname()[1]}"
        with pytest.raises(Unreachable, match=rf"{address} does not answer .*bgpanet up") as caught:
            Client(address, "t").get("jobs")
    assert (caught.value.status, len(waits)) == (0, 4)


@pytest.mark.parametrize(
    ("address", "told"), [("ftp://x", "must begin with http"), ("127.0.0.1:8080", "must begin with http")]
)
def test_an_address_that_can_be_none_is_told_at_once(address: str, told: str) -> None:
    with pytest.raises(Unreachable, match=told):
        Client(address, "t")


def test_another_service_at_the_address_is_told(tmp_path: Path) -> None:
    def page(environ: Any, start: Any) -> list[bytes]:
        start("200 OK", [("Content-Type", "text/html")])
        return [b"<p>Welcome"]

    told = pytest.raises(Unreachable, match="is it the address of this service")
    with listening(page) as (url, _), Client(url, "t") as client, told:
        client.get("jobs")


@pytest.mark.parametrize(
    ("status", "kind", "told"),
    [
        ("401 NO", TokenRefused, "set BGPANET_TOKEN"),
        ("403 NO", NotAllowed, "ask an admin"),
        ("404 NO", Missing, "HTTP 404"),
        ("409 NO", Contradicted, "HTTP 409"),
        ("413 NO", Invalid, "HTTP 413"),
        ("422 NO", Invalid, "HTTP 422"),
        ("500 NO", Broken, "tell whoever runs the service"),
    ],
)
def test_each_refusal_has_its_type_and_is_told_at_once(
    reached: Reached, status: str, kind: type[ApiError], told: str
) -> None:
    reached.line.refuse(status)
    with pytest.raises(kind, match=told) as caught:
        reached.client.get("jobs")
    assert (type(caught.value), caught.value.status, reached.count("GET")) == (kind, int(status[:3]), 1)


def test_every_wrong_field_is_told(reached: Reached) -> None:
    with pytest.raises(Invalid) as caught:
        reached.client.submit("train", dataset="nothing", spec={"training": {"epochs": 0}, "weather": 1})
    for field in ("dataset", "spec.training.epochs", "spec.weather"):
        assert f"  {field}: " in str(caught.value)


def test_a_connection_can_be_told_to_be_quick(reached: Reached, api: Api) -> None:
    reached.line.refuse("503 BUSY")
    quick = Connection(reached.client.url, api.tokens["ada"], Limits(connect=60, read=60, tries=1))
    with pytest.raises(TooBusy):
        quick.json("GET", "jobs")
    quick.close()
    assert reached.waits == []


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("12", 12),
        (" 3 ", 3),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
        ("soon", None),
        ("", None),
        (None, None),
        ("-4", None),
    ],
)
def test_a_wait_is_a_number_of_seconds_or_a_date(header: str | None, seconds: float | None) -> None:
    assert seconds_to_wait(header) == seconds
