"""Tokens, projects, the audit trail and limits over HTTP."""

import time
from datetime import UTC, datetime, timedelta

import pytest

from services import audit, fleet
from services.fleet import Member, Weights
from services.fleet_use import Use
from services.throttle import Throttle
from tests.unit.services.api.test_api import Api, finished_job
from tests.unit.services.api.test_api import api as api  # a fixture


def in_days(days: float) -> str:
    return (datetime.now(UTC) + timedelta(days=days)).isoformat()


def actions(api: Api) -> list[tuple[str, str, str]]:
    """Of the audit trail, oldest first: who, what, to what."""
    items = api.call("GET", "audit").json["items"]
    return [(item["user"], item["action"], item["subject"]) for item in reversed(items)]


# ── Tokens ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_people_make_list_and_revoke_their_own_tokens(api: Api) -> None:
    made = api.call("POST", "tokens", "ada", json={"name": "nightly", "scopes": ["submit"], "expires_at": in_days(1)})
    assert made.status_code == 201
    assert (made.json["user"], made.json["role"], made.json["scopes"]) == ("ada", "researcher", ["read", "submit"])
    api.tokens["nightly"] = made.json["token"]
    assert api.submit("nightly").status_code == 201
    assert api.call("POST", "tokens", "nightly", json={"name": "more"}).status_code == 403
    assert {row["user"] for row in api.call("GET", "tokens", "ada").json["items"]} == {"ada"}
    assert "token" not in api.call("GET", "tokens", "ada").json["items"][0]
    assert api.call("DELETE", f"tokens/{made.json['id']}", "bob").status_code == 404
    assert api.call("DELETE", f"tokens/{made.json['id']}", "nightly").status_code == 204  # itself, without the scope
    assert api.call("GET", "me", "nightly").status_code == 401


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"user": "bob"}, 403),
        ({"role": "admin"}, 403),
        ({"scopes": []}, 422),
        ({"scopes": ["all"]}, 422),
        ({"expires_at": "2020-01-01T00:00:00Z"}, 422),
        ({"expires_at": "2099-01-01T00:00:00"}, 422),
        ({"expires_at": "tomorrow"}, 422),
        ({"expires_at": 4_000_000_000}, 422),
    ],
)
def test_a_token_that_may_not_be_is_refused(api: Api, changes: dict[str, object], status: int) -> None:
    assert api.call("POST", "tokens", "ada", json={"name": "n", **changes}).status_code == status
    assert len(api.call("GET", "tokens", "ada").json["items"]) == 1


def test_a_token_that_only_reads_submits_nothing(api: Api) -> None:
    api.tokens["reader"] = api.call("POST", "tokens", "ada", json={"name": "n", "scopes": ["read"]}).json["token"]
    assert api.call("GET", "jobs", "reader").status_code == 200
    assert api.submit("reader").status_code == 403
    assert api.call("POST", "projects", "reader", json={"id": "derma"}).status_code == 403
    assert api.call("POST", "uploads", "reader", json={"name": "x", "size": 1, "sha256": "0" * 64}).status_code == 403


def test_a_token_tells_when_it_was_used_last(api: Api) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        (token,) = api.call("GET", "tokens", "ada").json["items"]
        if token["last_used_at"] is not None:
            break
        time.sleep(0.02)
    assert token["last_used_at"] is not None


# ── Projects ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_project_shares_jobs_with_its_members(api: Api) -> None:
    assert api.call("POST", "projects", "ada", json={"id": "derma", "title": "Dermoscopy"}).status_code == 201
    job_id = api.submit("ada", project="derma").json["id"]
    assert api.call("GET", f"jobs/{job_id}", "bob").status_code == 404
    assert api.call("PUT", "projects/derma/members/bob", "ada", json={"role": "viewer"}).status_code == 200
    assert api.call("GET", f"jobs/{job_id}", "bob").json["project"] == "derma"
    assert api.call("POST", f"jobs/{job_id}/cancel", "bob").status_code == 403  # a viewer sees it, and no more
    assert api.submit("bob", project="derma").status_code == 422
    api.call("PUT", "projects/derma/members/bob", "ada", json={"role": "researcher"})
    assert api.submit("bob", project="derma").status_code == 201
    assert api.call("POST", f"jobs/{job_id}/cancel", "bob").json["state"] == "cancelled"
    assert len(api.call("GET", "jobs?project=derma", "ada").json["items"]) == 2
    assert api.call("DELETE", "projects/derma/members/bob", "bob").status_code == 204
    assert api.call("GET", "jobs", "bob").json["items"] == []
    assert api.call("DELETE", "projects/derma", "ada").status_code == 409


def test_a_clone_of_what_one_only_sees_is_ones_own(api: Api) -> None:
    api.call("POST", "projects", "ada", json={"id": "derma"})
    api.call("PUT", "projects/derma/members/bob", "ada", json={"role": "viewer"})
    job_id = api.submit("ada", project="derma").json["id"]
    assert api.call("POST", f"jobs/{job_id}/clone", "bob", json={}).json["project"] == "~bob"
    assert api.call("POST", f"jobs/{job_id}/clone", "ada", json={}).json["project"] == "derma"


def test_workers_tell_of_a_job_whoever_sees_it(api: Api) -> None:
    job_id = api.submit("ada").json["id"]
    member = Member("w", "host", 1, "0.1.0", "CPU", ["any"])
    fleet.beat(api.context.database, member, job_id, {}, Weights("", []))
    told = {user: api.call("GET", "workers", user).json["items"][0]["job"] for user in ("ada", "bob", "root")}
    assert told == {"ada": job_id, "bob": None, "root": job_id}


def test_an_admin_alone_has_a_worker_leave_and_it_stands_in_the_trail(api: Api) -> None:
    job_id = api.submit("ada").json["id"]
    fleet.beat(api.context.database, Member("gpu-1/0", "host", 1, "0.1.0", "CPU", ["any"]), job_id, {}, Weights("", []))
    made = api.call("POST", "tokens", "root", json={"name": "submits", "scopes": ["read", "submit"]})
    api.tokens["submits"] = made.json["token"]
    for user in ("ada", "submits"):  # the second is root's, without the scope `manage`
        assert api.call("POST", "workers/gpu-1/drain", user).status_code == 403
    assert api.call("GET", "workers", "ada").json["items"][0]["state"] == "busy"
    assert api.call("POST", "workers/gpu-2/drain", "root").status_code == 404
    for name in ("gpu-1", "gpu-1/0", "gpu-1%2F0"):
        answer = api.call("POST", f"workers/{name}/drain", "root")
        assert (answer.status_code, [item["state"] for item in answer.json["items"]]) == (202, ["draining"])
    assert [entry for entry in actions(api) if entry[1] == "worker.drain"] == [("root", "worker.drain", "gpu-1")]


def test_everybody_sees_how_busy_workers_were(api: Api) -> None:
    for name, use in (("b/0", Use(1.0)), ("a/0", Use(0.5, 80.0, 25.0))):
        member = Member(name, "host", 1, "0.1.0", "CPU", ["any"])
        fleet.beat(api.context.database, member, None, {}, Weights("", []), use=use)
    answer = api.call("GET", "workers/use?hours=3&points=2", "ada")
    assert answer.json == {
        "items": [
            {"name": "a/0", "use": [None, {"busy": 0.5, "gpu_percent": 80.0, "cpu_percent": 25.0}]},
            {"name": "b/0", "use": [None, {"busy": 1.0, "gpu_percent": None, "cpu_percent": None}]},
        ],
        "next_cursor": None,
    }
    assert [len(item["use"]) for item in api.call("GET", "workers/use", "bob").json["items"]] == [96, 96]
    assert api.call("GET", "workers/use?hours=49&points=0", "ada").status_code == 422


# ── The audit trail ───────────────────────────────────────────────────────────────────────────────────────────────


def test_what_people_do_stands_in_the_trail(api: Api) -> None:
    job_id = api.submit("ada").json["id"]
    api.call("PATCH", f"jobs/{job_id}", "ada", json={"priority": 3})
    api.call("POST", f"jobs/{job_id}/pause", "ada")
    api.call("POST", f"jobs/{job_id}/resume", "ada")
    api.call("POST", f"jobs/{job_id}/cancel", "ada")
    again = api.call("POST", f"jobs/{job_id}/retry", "ada").json["id"]
    api.call("POST", f"jobs/{job_id}/retry", "ada")  # the same again: nothing is changed
    told = actions(api)
    assert told == [
        ("ada", "job.submit", job_id),
        ("ada", "job.set_priority", job_id),
        ("ada", "job.pause", job_id),
        ("ada", "job.resume", job_id),
        ("ada", "job.cancel", job_id),
        ("ada", "job.retry", again),
    ]
    assert audit.verify(api.context.database).broken is None


def test_a_repeated_submission_and_one_that_is_refused_leave_no_second_entry(api: Api) -> None:
    for _ in range(2):
        body = {"kind": "train", "dataset": "lesions", "spec": {"model": "bgpanet_micro"}}
        api.call("POST", "jobs", "ada", json=body, headers={"Idempotency-Key": "k"})
    assert api.submit("ada", dataset="none").status_code == 422
    assert len(actions(api)) == 1


def test_downloads_stand_in_the_trail_once_for_their_beginning(api: Api) -> None:
    job_id = finished_job(api, "ada")
    path = f"jobs/{job_id}/artifacts/report.json"
    etag = api.call("GET", path, "ada").headers["ETag"]
    api.call("GET", path, "ada", headers={"Range": "bytes=2-3"})
    api.call("GET", path, "ada", headers={"If-None-Match": etag})
    assert actions(api)[1:] == [("ada", "artifact.download", job_id)]


def test_refusals_stand_in_the_trail_and_do_not_fill_it(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """All at one moment: how long they really take is the machine's business."""
    monkeypatch.setattr(api.client.application.extensions["bgpanet_refusals"]._throttle, "_clock", lambda: 0.0)
    for _ in range(70):
        assert api.call("POST", "projects", "eve", json={"id": "derma"}).status_code == 403
    told = api.call("GET", "audit?limit=500").json["items"]
    who = {(item["user"], item["subject"], item["outcome"]) for item in told}
    assert who == {("eve", "/api/v1/projects", "refused")}
    assert 60 <= len(told) < 70


def test_the_trail_is_for_admins_and_comes_in_pages(api: Api) -> None:
    assert api.call("GET", "audit", "ada").status_code == 403
    for _ in range(3):
        api.submit("bob")
    first = api.call("GET", "audit?user=bob&limit=2").json
    rest = api.call("GET", f"audit?user=bob&limit=2&cursor={first['next_cursor']}").json
    assert (len(first["items"]), len(rest["items"]), rest["next_cursor"]) == (2, 1, None)


def test_the_trail_is_asked_for_a_time(api: Api) -> None:
    for _ in range(3):
        api.submit("bob")
        time.sleep(0.005)
    entries = api.call("GET", "audit?user=bob").json["items"][::-1]
    since, until = entries[1]["at"], entries[2]["at"]

    def found(query: str) -> list[int]:
        return [entry["number"] for entry in api.call("GET", f"audit?user=bob&{query}").json["items"][::-1]]

    numbers = [entry["number"] for entry in entries]
    assert found(f"since={since}") == numbers[1:]
    assert found(f"until={until}") == numbers[:2]
    assert found(f"since={since}&until={until}") == numbers[1:2]
    refused = api.call("GET", "audit?since=yesterday&until=2026-03-01T09:00:00")
    assert (refused.status_code, len(refused.json["errors"])) == (422, 2)


# ── Limits ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_token_that_asks_too_often_is_told_when_to_come_back_and_others_are_not(api: Api) -> None:
    api.client.application.extensions["bgpanet_throttle"] = Throttle(per_second=0.5, burst=2, clock=lambda: 0.0)
    assert [api.call("GET", "me", "ada").status_code for _ in range(3)] == [200, 200, 429]
    answer = api.call("GET", "me", "ada")
    assert answer.headers["Retry-After"] == "2"
    assert answer.content_type == "application/problem+json"
    assert api.call("GET", "me", "bob").status_code == 200


def test_a_body_that_is_too_large_is_refused(api: Api) -> None:
    api.client.application.config["MAX_CONTENT_LENGTH"] = 1000
    assert api.submit("ada", name="x" * 150, spec={"model": "bgpanet_micro", "x": "y" * 1000}).status_code == 413
