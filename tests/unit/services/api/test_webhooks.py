"""Webhooks over HTTP, and their way from a job's end to a receiver that listens."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from services import outbox
from services.context import Context
from services.deliveries import Delivering
from tests.unit.services.api.test_api import Api, finished_job
from tests.unit.services.api.test_api import api as api  # a fixture

URL = "https://lab.example.org/hooks"


def make(api: Api, user: str = "ada", **changes: Any) -> Any:
    return api.call("POST", "webhooks", user, json={"url": URL, **changes})


def test_a_webhook_is_made_and_shown_and_its_secret_only_once(api: Api) -> None:
    made = make(api, states=["failed"])
    assert made.status_code == 201
    assert made.json["secret"].startswith("whsec_")
    shown = api.client.get(made.headers["Location"], headers={"Authorization": f"Bearer {api.tokens['ada']}"})
    assert shown.json == {name: value for name, value in made.json.items() if name != "secret"}
    assert api.call("GET", "webhooks", "ada").json["items"] == [shown.json]
    assert made.json["secret"] not in api.call("GET", "webhooks", "root").text
    assert api.call("DELETE", f"webhooks/{made.json['id']}", "ada").status_code == 204
    assert api.call("GET", f"webhooks/{made.json['id']}", "ada").status_code == 404


@pytest.mark.parametrize(
    "url",
    ["file:///etc/passwd", "http://169.254.169.254/latest/meta-data", "https://localhost/", "https://[::1]/"],
)
def test_an_address_that_leads_inside_is_refused(api: Api, url: str) -> None:
    answer = make(api, url=url)
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json["errors"]] == ["url"]


@pytest.mark.parametrize(
    "wrong", [{"states": []}, {"states": ["running"]}, {"secret": "mine"}, {"everyone": "yes"}, {"url": None}]
)
def test_what_can_be_no_webhook_is_refused(api: Api, wrong: dict[str, Any]) -> None:
    assert make(api, **wrong).status_code == 422


def test_a_viewer_makes_none_and_only_an_admin_hears_of_all(api: Api) -> None:
    assert make(api, "eve").status_code == 403
    assert make(api, "ada", everyone=True).status_code == 403
    assert make(api, "root", everyone=True).status_code == 201


def test_another_users_webhook_is_not_there(api: Api) -> None:
    hook = make(api).json["id"]
    delivery = api.call("POST", f"webhooks/{hook}/ping", "ada").json["id"]
    for method, path in (
        ("GET", ""),
        ("DELETE", ""),
        ("PATCH", ""),
        ("POST", "/ping"),
        ("GET", "/deliveries"),
        ("POST", f"/deliveries/{delivery}/repeat"),
    ):
        assert api.call(method, f"webhooks/{hook}{path}", "bob", json={"active": False}).status_code == 404
    assert api.call("GET", f"webhooks/{hook}", "ada").json["active"]


def test_deliveries_come_in_pages_and_can_be_repeated(api: Api) -> None:
    hook = make(api).json["id"]
    pings = [api.call("POST", f"webhooks/{hook}/ping", "ada").json["id"] for _ in range(3)]
    first = api.call("GET", f"webhooks/{hook}/deliveries?limit=2&state=waiting", "ada").json
    rest = api.call("GET", f"webhooks/{hook}/deliveries?limit=2&cursor={first['next_cursor']}", "ada").json
    assert [each["id"] for each in first["items"] + rest["items"]] == pings[::-1]
    assert rest["next_cursor"] is None
    again = api.call("POST", f"webhooks/{hook}/deliveries/{pings[0]}/repeat", "ada")
    assert (again.status_code, again.json["id"], again.json["state"]) == (202, pings[0], "waiting")
    assert api.call("POST", f"webhooks/{hook}/deliveries/other/repeat", "ada").status_code == 404


def test_a_webhook_is_switched_off_and_on_and_changed_and_its_address_stays(api: Api) -> None:
    made = make(api).json
    assert made["active"]
    path = f"webhooks/{made['id']}"
    delivery = api.call("POST", f"{path}/ping", "ada").json["id"]
    off = api.call("PATCH", path, "ada", json={"active": False, "states": ["failed"], "children": True})
    assert off.status_code == 200
    expected = {**made, "active": False, "states": ["failed"], "children": True}
    del expected["secret"]
    assert off.json == expected == api.call("GET", path, "ada").json
    for refused in ("ping", f"deliveries/{delivery}/repeat"):
        answer = api.call("POST", f"{path}/{refused}", "ada")
        assert answer.status_code == 409
        assert "switch it on" in answer.json["detail"]
    assert api.call("GET", f"{path}/deliveries", "ada").json["items"][0]["next_at"] is None
    assert api.call("PATCH", path, "root", json={"active": True, "everyone": True}).json["everyone"]
    assert api.call("POST", f"{path}/ping", "ada").status_code == 202


def test_all_that_is_wrong_with_a_change_is_told_at_once_and_nothing_of_it_is_done(api: Api) -> None:
    hook = make(api).json
    path = f"webhooks/{hook['id']}"
    wrong = {
        "active": "no",
        "states": ["running"],
        "children": 1,
        "url": "https://other.example.org/",
        "secret": "mine",
    }
    answer = api.call("PATCH", path, "ada", json={**wrong, "everyone": None})
    assert answer.status_code == 422
    told = {error["field"]: error["detail"] for error in answer.json["errors"]}
    assert told.keys() == {"active", "states.0", "children", "everyone", "url", "secret"}
    assert "make another webhook" in told["url"]
    for body, word in (
        ({}, "at least one of active, states"),
        ({"active": None}, "leave it out"),
        ({"states": []}, ""),
    ):
        answer = api.call("PATCH", path, "ada", json=body)
        assert answer.status_code == 422
        assert word in answer.text
    assert api.call("PATCH", path, "ada", json={"active": False, "everyone": True}).status_code == 403
    assert api.call("PATCH", path, "eve", json={"active": False}).status_code == 403
    assert hook == {**api.call("GET", path, "ada").json, "secret": hook["secret"]}


class Receiver(HTTPServer):
    """Answers 500 to the first call and 200 to those after it."""

    calls: list[dict[str, str]]


class Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.calls.append(dict(self.headers))
        self.send_response(500 if len(self.server.calls) == 1 else 200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver(("127.0.0.1", 0), Handler)
    server.calls = []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_jobs_end_reaches_a_receiver_that_failed_at_first(
    api: Api, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two that deliver run at once; each delivery is made by one of them."""
    slow = {**(outbox.settle.__kwdefaults__ or {}), "delays": (3600.0,)}
    monkeypatch.setattr(outbox.settle, "__kwdefaults__", slow)  # it is repeated here, and not by itself
    settings = replace(api.context.settings, webhook_hosts=("127.0.0.1",))
    vars(api.context)["settings"] = settings
    hook = make(api, url=f"http://127.0.0.1:{receiver.server_port}/").json["id"]
    job_id = finished_job(api, "ada")
    others = [Context(settings) for _ in range(2)]
    stopping = threading.Event()
    threads = [Delivering(context, stopping) for context in others]

    def only(state: str) -> dict[str, Any]:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            (item,) = api.call("GET", f"webhooks/{hook}/deliveries", "ada").json["items"]
            if item["state"] == state and item["tries"] and (item["error"] or state == "delivered"):
                return dict(item)
            time.sleep(0.05)
        raise AssertionError(item)

    try:
        for thread in threads:
            thread.start()
        failed = only("waiting")
        assert (failed["job"], failed["status"], failed["event"]) == (job_id, 500, "job.succeeded")
        api.call("POST", f"webhooks/{hook}/deliveries/{failed['id']}/repeat", "ada")
        assert only("delivered")["tries"] == 2
    finally:
        stopping.set()
        for thread in threads:
            thread.join()
        for context in others:
            context.database.close()
    assert [call["Webhook-Id"] for call in receiver.calls] == [failed["id"]] * 2
