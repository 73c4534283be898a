"""A job's events through the client: each once and in order, over breaks, and where no stream is to be had."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services import following, jobs, streams
from services.claims import Batch, Claim
from services.client import Client, JobEvent, JobFailed
from services.client_errors import Missing, Unreachable
from services.following import Told
from services.order import Offer
from tests.support.listening import Line, listening
from tests.unit.services.api.test_api import Api, finished_job
from tests.unit.services.api.test_api import api as api  # a fixture


class Followed:
    """Ada's client, the line that it speaks over, and what a worker does."""

    def __init__(self, api: Api, client: Client, line: Line) -> None:
        self.api, self.client, self.line = api, client, line

    def running(self) -> tuple[str, Claim]:
        job_id = self.api.submit("ada").json["id"]
        claim = jobs.claim(self.api.context.database, "w", Offer(["any"]), 60)
        assert claim is not None
        jobs.resumed(self.api.context.database, claim.lease, 0)
        return job_id, claim

    def says(self, claim: Claim, step: int) -> None:
        figures = [{"step": step, "epoch": step, "name": "loss", "value": 1 / step}]
        batch = Batch({"fraction": step / 10}, figures, [("info", f"step {step}")])
        jobs.renew(self.api.context.database, claim.lease, 60, batch)

    def ends(self, claim: Claim) -> None:
        jobs.finish(self.api.context.database, claim.lease, {"figures": {}}, [])


@pytest.fixture
def followed(api: Api, monkeypatch: pytest.MonkeyPatch) -> Iterator[Followed]:
    monkeypatch.setattr(streams, "FIRST_WAIT", 0.02)
    monkeypatch.setattr(streams, "LONGEST_WAIT", 0.02)
    with listening(api.client.application) as (url, line), Client(url, api.tokens["ada"]) as client:
        yield Followed(api, client, line)
        api.client.application.extensions["bgpanet_streams"].closing = lambda: True


def told(events: list[JobEvent]) -> list[tuple[str, Any]]:
    """What is compared: of each kind, what tells one event from another. Progress is the newest only."""
    what = {"state": "state", "log": "message", "metrics": "step", "started": "step", "end": "state"}
    return [(event.kind, event.data[what[event.kind]]) for event in events if event.kind in what]


EVERYTHING = [
    ("state", "queued"),
    ("state", "running"),
    ("started", 0),
    *[(kind, value) for n in (1, 2, 3) for kind, value in (("metrics", n), ("log", f"step {n}"))],
    ("state", "succeeded"),
    ("end", "succeeded"),
]


def test_events_come_as_they_happen_each_once(followed: Followed) -> None:
    job_id, claim = followed.running()
    events = followed.client.job(job_id).follow()
    heard = []
    for step in (1, 2, 3):
        followed.says(claim, step)
        for event in events:
            heard.append(event)
            if event.kind == "progress" and event.data["fraction"] == step / 10:
                break
    followed.ends(claim)
    heard += list(events)
    assert told(heard) == EVERYTHING
    assert heard[-1].data["summary"] == {"figures": {}}


def test_streams_that_break_after_every_event_lose_and_double_nothing(followed: Followed) -> None:
    def broken(path: str, body: Iterator[bytes]) -> Iterator[bytes]:
        return itertools.islice(body, 2) if path.endswith("/events") else body  # `retry:` and one event

    job_id, claim = followed.running()
    for step in (1, 2, 3):
        followed.says(claim, step)
    followed.ends(claim)
    followed.line.cut = broken
    heard = list(following.Following(followed.client.connection, job_id, every=0.01))
    assert sorted(map(str, told(heard))) == sorted(map(str, EVERYTHING))
    assert len([path for _, path in followed.line.asked if path.endswith("/events")]) >= len(EVERYTHING)


@pytest.mark.parametrize("status", ["429 TOO MANY REQUESTS", "503 BUSY"])
def test_where_no_stream_is_to_be_had_it_is_asked_for_and_tells_the_same(followed: Followed, status: str) -> None:
    job_id, claim = followed.running()
    for step in (1, 2, 3):
        followed.says(claim, step)
    followed.ends(claim)
    followed.line.refuse(status, Retry_After="60")
    events = following.Following(followed.client.connection, job_id, every=0.01)
    heard = list(events)
    assert sorted(map(str, told(heard))) == sorted(map(str, EVERYTHING))
    assert heard[-1].kind == "end"
    assert {path.rpartition("/")[2] for _, path in followed.line.asked} >= {"logs", "metrics", "attempts", "children"}


def test_a_stream_that_is_to_be_had_again_tells_nothing_twice(followed: Followed) -> None:
    job_id, claim = followed.running()
    followed.says(claim, 1)
    followed.line.refuse("503 BUSY", Retry_After="600")  # of the stream
    events = following.Following(followed.client.connection, job_id, every=0.01)
    heard = [next(events)]
    while heard[-1].kind != "progress":
        heard.append(next(events))
    events._ask_until = 0.0
    for step in (2, 3):
        followed.says(claim, step)
    followed.ends(claim)
    heard += list(events)
    assert len([path for _, path in followed.line.asked if path.endswith("/events")]) == 3, "refused, asked, listened"
    assert sorted(map(str, told(heard))) == sorted(map(str, EVERYTHING))


def test_a_service_that_is_away_is_waited_for_and_then_told(
    followed: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "SILENCE_SECONDS", 0.1)
    job_id, _ = followed.running()
    followed.line.cut = lambda path, body: (_ for _ in ()).throw(ConnectionResetError("gone"))
    with pytest.raises(Unreachable):
        list(following.Following(followed.client.connection, job_id, every=0.02))


def test_a_place_that_the_service_does_not_know_begins_anew_and_tells_nothing_twice(followed: Followed) -> None:
    job_id = finished_job(followed.api, "ada")
    events = following.Following(followed.client.connection, job_id, every=0.01)
    first = next(events)
    events._place = "of another version"
    events._events.close()
    events._events = events._follow()
    assert told([first, *events])[:2] == [("state", "queued"), ("state", "running")]


def test_waiting_has_an_end(followed: Followed) -> None:
    job_id, _ = followed.running()
    with pytest.raises(TimeoutError, match="had not ended after 0 s"):
        followed.client.job(job_id).wait(timeout=0.2, every=0.05)


def test_a_job_that_is_waited_for_is_shown_as_it_comes_along(followed: Followed) -> None:
    job_id, claim = followed.running()
    seen: list[tuple[str, float]] = []
    work = {("running", 0): lambda: followed.says(claim, 5), ("running", 0.5): lambda: followed.ends(claim)}

    def look(job: Any) -> None:
        seen.append((job.state, job.values["progress"]["fraction"]))
        work.pop(seen[-1], lambda: None)()

    done = followed.client.job(job_id).wait(on_update=look)
    assert (done.state, done.summary) == ("succeeded", {"figures": {}})
    assert {("running", 0), ("running", 0.5)} <= set(seen)
    assert done.values == followed.client.job(job_id).values


def test_a_job_that_fails_raises_with_its_reason(followed: Followed) -> None:
    job_id, claim = followed.running()
    jobs.fail(followed.api.context.database, claim.lease, "stalled", "silent")
    with pytest.raises(JobFailed, match=f"job {job_id} failed: stalled silent"):
        followed.client.job(job_id).wait()


def test_topics_are_those_asked_for_and_others_are_refused(followed: Followed) -> None:
    job_id = finished_job(followed.api, "ada")
    assert {event.kind for event in followed.client.job(job_id).follow("state")} == {"state", "end"}
    with pytest.raises(ValueError, match="no topic: weather"):
        followed.client.job(job_id).follow("weather")


def test_another_user_s_job_is_not_there(followed: Followed) -> None:
    job_id = followed.api.submit("bob").json["id"]
    with pytest.raises(Missing):
        list(following.Following(followed.client.connection, job_id))


def test_figures_that_an_attempt_takes_back_come_again() -> None:
    memory = Told()
    assert memory.is_new("metrics", {"step": 9, "epoch": 3})
    assert not memory.is_new("metrics", {"step": 6, "epoch": 2})
    assert memory.is_new("started", {"attempt": 2, "step": 6})
    assert not memory.is_new("metrics", {"step": 6, "epoch": 2})
    assert memory.is_new("metrics", {"step": 9, "epoch": 3})


def test_a_card_is_small_escaped_and_needs_nothing_beside_itself(followed: Followed, tmp_path: Path) -> None:
    bad = "<img src=x onerror=alert(1)>\"'&"
    job = followed.client.submit("train", dataset="lesions", spec={"model": "bgpanet_micro"}, name=bad)
    claim = jobs.claim(followed.api.context.database, "w", Offer(["any"]), 60)
    assert claim is not None
    jobs.fail(followed.api.context.database, claim.lease, "internal", bad * 100)
    card = job.refresh()._repr_html_()
    assert card.count("&lt;img src=x onerror=alert(1)&gt;") > 2
    for never in ("<img", "<script", 'src="', "url("):
        assert never not in card
    assert card.count("http") == 1
    assert f"{followed.client.url}/jobs/{job.id}" in card
    assert "failed (internal)" in card
    assert len(card) < 4000
