"""Server-sent events from a server that listens: the API and the database are real."""

import json
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from werkzeug.serving import make_server

from services import jobs, streams, tokens
from services.claims import Batch, Claim
from services.order import Offer
from services.streams import Places
from tests.unit.services.api.test_api import Api, finished_job
from tests.unit.services.api.test_api import api as api  # a fixture


@dataclass
class Told:
    """One event, as it came."""

    kind: str
    id: str
    data: dict[str, Any]


class Listening:
    """A stream that is open. It is an iterator of lines, comments among them."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer, self.lines = answer, answer.iter_lines()

    def events(self, count: int | None = None) -> list[Told]:
        """The next events; None: all until the stream ends."""
        found: list[Told] = []
        fields: dict[str, str] = {}
        while count is None or len(found) < count:
            line = next(self.lines, None)
            if line is None:
                assert count is None, f"the stream ended after {found}"
                break
            if not line and "event" in fields:
                found.append(Told(fields["event"], fields["id"], json.loads(fields["data"])))
            name, _, value = line.partition(": ")
            fields = {**fields, name: value} if line else {}
        return found


class Service:
    """The API behind an address."""

    def __init__(self, api: Api, url: str) -> None:
        self.api, self.url = api, url

    def ask(
        self,
        job_id: str,
        user: str = "ada",
        last: str | None = None,
        accept: str = "text/event-stream",
        topics: tuple[str, ...] = (),
    ) -> AbstractContextManager[httpx.Response]:
        headers = {"Authorization": f"Bearer {self.api.tokens[user]}", "Accept": accept}
        headers |= {} if last is None else {"Last-Event-ID": last}
        return httpx.stream(
            "GET", f"{self.url}/api/v1/jobs/{job_id}/events", params={"topic": topics}, headers=headers, timeout=60
        )

    @contextmanager
    def listen(self, job_id: str, user: str = "ada", last: str | None = None) -> Iterator[Listening]:
        with self.ask(job_id, user, last) as answer:
            assert answer.status_code == 200, answer.read()
            assert answer.headers["Content-Type"].startswith("text/event-stream")
            yield Listening(answer)

    def refused(self, job_id: str, user: str = "ada", last: str | None = None) -> httpx.Response:
        with self.ask(job_id, user, last) as answer:
            answer.read()
            return answer

    def claim(self) -> Claim:
        claimed = jobs.claim(self.api.context.database, "w", Offer(["any"]), 60)
        assert claimed is not None
        return claimed


@pytest.fixture
def service(api: Api, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.setattr(streams, "FIRST_WAIT", 0.02)
    monkeypatch.setattr(streams, "LONGEST_WAIT", 0.02)
    server = make_server("127.0.0.1", 0, api.client.application, threaded=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield Service(api, f"http://127.0.0.1:{server.port}")
    places(api).closing = lambda: True
    server.shutdown()
    thread.join()
    server.server_close()


def places(api: Api) -> Places:
    found: Places = api.client.application.extensions["bgpanet_streams"]
    return found


@pytest.mark.parametrize("accept", ["*/*", "application/json", "text/event-stream;q=0.5, application/json", ""])
def test_who_does_not_ask_for_a_stream_gets_the_list(service: Service, accept: str) -> None:
    job_id = service.api.submit("ada").json["id"]
    with service.ask(job_id, accept=accept) as answer:
        assert [event["state"] for event in json.loads(answer.read())["items"]] == ["queued"]


def test_a_stream_that_is_cut_goes_on_where_it_was_without_loss_or_doubling(service: Service) -> None:
    database, job_id = service.api.context.database, service.api.submit("ada").json["id"]
    claim = service.claim()
    jobs.resumed(database, claim.lease, 0)
    figures = [{"step": 1, "epoch": 0, "name": "loss", "value": 0.5}]
    jobs.renew(database, claim.lease, 60, Batch({"fraction": 0.5}, figures, [("info", "one"), ("info", "t\nwo\u2028")]))
    with service.listen(job_id) as listening:
        heard = listening.events(4)
    jobs.renew(database, claim.lease, 60, Batch(logs=[("info", "three")]))
    with service.listen(job_id, last=heard[-1].id) as listening:
        heard += listening.events(4)
        jobs.finish(database, claim.lease, {"figures": {}}, [])
        heard += listening.events()
    kinds = [event.kind for event in heard]
    assert kinds == [
        "state",
        "state",
        "started",
        "metrics",
        "log",
        "log",
        "log",
        "progress",
        "progress",
        "state",
        "end",
    ]
    assert [event.data["message"] for event in heard if event.kind == "log"] == ["one", "t\nwo\u2028", "three"]
    shown = service.api.call("GET", f"jobs/{job_id}", "ada").json
    assert heard[-1].data == {name: value for name, value in shown.items() if name != "queue"}


def test_after_its_end_there_is_nothing_to_listen_to(service: Service) -> None:
    job_id = finished_job(service.api, "ada")
    with service.listen(job_id) as listening:
        heard = listening.events()
    assert [event.data["state"] for event in heard if event.kind in ("state", "end")] == (
        ["queued", "running", "succeeded", "succeeded"]
    )
    assert service.refused(job_id, last=heard[-1].id).status_code == 204


def test_a_stream_tells_only_what_is_asked_for(service: Service) -> None:
    job_id = finished_job(service.api, "ada")
    with service.ask(job_id, topics=("progress", "log")) as answer:
        assert [event.kind for event in Listening(answer).events()] == ["progress", "end"]
    with service.ask(job_id, topics=("weather",)) as answer:
        assert answer.status_code == 422


@pytest.mark.parametrize(("user", "status"), [("bob", 404), ("eve", 404), ("root", 200)])
def test_another_user_s_job_is_not_there(service: Service, user: str, status: int) -> None:
    job_id = finished_job(service.api, "ada")
    with service.ask(job_id, user) as answer:
        assert answer.status_code == status


def test_an_id_that_was_never_sent_is_refused(service: Service) -> None:
    answer = service.refused(service.api.submit("ada").json["id"], last="17")
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "Last-Event-ID")


def test_streams_are_bounded_for_each_token_and_in_all_and_a_closed_one_makes_room(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "HEARTBEAT_SECONDS", 0.02)
    places(service.api).most, places(service.api).most_of_token = 2, 1
    mine, root = service.api.submit("ada").json["id"], "root"
    with service.listen(mine) as first, service.listen(mine, root):
        first.events(1)
        second = service.refused(mine)
        assert (second.status_code, second.headers["Retry-After"]) == (429, "10")
        service.api.person("second", "admin")
        full = service.refused(mine, "second")
        assert (full.status_code, full.headers["Retry-After"]) == (503, "10")
        assert service.api.call("GET", f"jobs/{mine}", "ada").status_code == 200
    jobs.cancel(service.api.context.database, mine)
    while service.refused(mine).status_code == 429:
        pass


def test_a_stream_in_which_nothing_happens_shows_that_it_is_alive(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "HEARTBEAT_SECONDS", 0.02)
    with service.listen(service.api.submit("ada").json["id"]) as listening:
        listening.events(2)
        assert next(line for line in listening.lines if line) == ": still here"


def test_a_token_that_is_revoked_hears_no_more(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "HEARTBEAT_SECONDS", 0.02)
    database, job_id = service.api.context.database, service.api.submit("ada").json["id"]
    with service.listen(job_id) as listening:
        listening.events(2)
        for token in tokens.list_tokens(database):
            if token["user"] == "ada":
                tokens.revoke(database, token["id"])
        assert listening.events() == []
    assert service.refused(job_id).status_code == 401


def test_a_process_that_stops_closes_its_streams(service: Service) -> None:
    with service.listen(service.api.submit("ada").json["id"]) as listening:
        listening.events(2)
        places(service.api).closing = lambda: True
        assert listening.events() == []
