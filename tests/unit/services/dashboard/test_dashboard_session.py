"""Signing in and out, forms, and what each role may do."""

import json
import re
from dataclasses import replace

import pytest
from flask.testing import FlaskClient
from sqlalchemy import update

from services import jobs, tokens, views
from services.database import now_ms
from services.tables import Token
from services.tokens import NewToken, Principal
from tests.unit.services.dashboard.browsing import csrf_of
from tests.unit.services.dashboard.conftest import SignIn
from tests.unit.services.dashboard.full_service import SPEC, Service, add_datasets

ADMIN = Principal("root", "admin")
OPEN = {
    "/login",
    "/login/openid",
    "/login/openid/back",
    "/static/<path:filename>",
    "/static/vendor/plotly-<version>.min.js",
}


def test_no_page_of_the_dashboard_answers_without_a_session(made: Service) -> None:
    client = made.app.test_client()
    closed = [rule for rule in made.app.url_map.iter_rules() if rule.endpoint.startswith("dashboard.")]
    paths = {rule.rule for rule in closed} - OPEN
    assert {"/jobs", "/jobs/<job_id>", "/jobs/<job_id>/cancel", "/datasets", "/workers", "/logout"} <= paths
    for rule in closed:
        if rule.rule in OPEN:
            continue
        path = re.sub(r"<[^>]+>", "1", rule.rule)
        for method in (rule.methods or set()) - {"OPTIONS"}:
            answer = client.open(path, method=method)
            assert (answer.status_code, answer.headers["Location"].partition("?")[0]) == (302, "/login"), (method, path)


def test_signing_in_leads_back_to_the_page_that_was_asked_for(made: Service) -> None:
    client, secret = made.app.test_client(), made.token("ada")[1]
    answer = client.get("/jobs?state=failed&q=caf%C3%A9")
    login = client.get(answer.headers["Location"])
    entered = client.post(answer.headers["Location"], data={"token": f" {secret}\n", "csrf": csrf_of(login)})
    assert entered.headers["Location"] == "/jobs?state=failed&q=caf%C3%A9"
    page = client.get(entered.headers["Location"])
    assert page.status_code == 200
    assert "ada" in page.text


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example/",
        "//evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "/\t/evil.example",
        "/ok\r\nSet-Cookie: a=b",
        "javascript:alert(1)",
        "jobs",
        " //evil.example",
        "",
    ],
)
def test_nobody_is_sent_to_another_host_after_signing_in(made: Service, target: str) -> None:
    client, secret = made.app.test_client(), made.token("ada")[1]
    form = {"token": secret, "csrf": csrf_of(client.get("/login"))}
    answer = client.post("/login", query_string={"next": target}, data=form)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/overview")


@pytest.mark.parametrize("secret", ["", "nope", "bgp_é", "x" * 10_000])
def test_an_unknown_token_opens_nothing(made: Service, secret: str) -> None:
    client = made.app.test_client()
    answer = client.post("/login", data={"token": secret, "csrf": csrf_of(client.get("/login"))})
    assert answer.status_code == 401
    assert "unknown or was revoked" in answer.text
    assert client.get("/jobs").status_code == 302


def test_revoking_a_token_ends_its_session_at_once_and_no_other(made: Service, sign_in: SignIn) -> None:
    token_id, secret = made.token("ada")
    ended, other = sign_in(secret=secret), sign_in("ada", "researcher")
    assert ended.get("/jobs").status_code == 200
    tokens.revoke(made.context.database, token_id)
    assert ended.get("/jobs").status_code == 302
    assert other.get("/jobs").status_code == 200


def test_a_session_ends_when_its_token_expires_and_its_last_use_is_told(made: Service, sign_in: SignIn) -> None:
    token_id, secret = made.token("ada")
    client = sign_in(secret=secret)
    assert client.get("/jobs").status_code == 200
    with made.context.database.write() as session:
        session.execute(update(Token).where(Token.id == token_id).values(expires_at=now_ms()))
    assert client.get("/jobs").status_code == 302


def test_a_token_that_may_only_read_changes_nothing_from_a_page(made: Service, sign_in: SignIn) -> None:
    add_datasets(made)
    job_id = made.submit(user="ada")
    secret = tokens.issue(made.context.database, ADMIN, NewToken("t", "ada", scopes=("read",)))[1]
    client = sign_in(secret=secret)
    page = client.get(f"/jobs/{job_id}")
    assert page.status_code == 200
    answer = client.post(f"/jobs/{job_id}/cancel", data={"csrf": csrf_of(page)})
    assert answer.status_code == 403
    assert views.get_job(made.context.database, ADMIN, job_id)["state"] == "queued"


def test_a_session_that_someone_signed_with_another_key_is_none(made: Service, sign_in: SignIn) -> None:
    client = sign_in()
    cookie = client.get_cookie("bgpanet")
    assert cookie is not None
    client.set_cookie("bgpanet", cookie.value[:-4] + "AAAA")
    assert client.get("/jobs").status_code == 302


def test_the_cookie_is_for_this_site_only_and_hidden_from_scripts(made: Service) -> None:
    cookie = made.app.test_client().get("/login").headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie


def test_the_secret_never_lies_in_the_cookie(made: Service, sign_in: SignIn) -> None:
    secret = made.token("ada")[1]
    client = sign_in(secret=secret)
    serializer = made.app.session_interface.get_signing_serializer(made.app)  # type: ignore[attr-defined]
    cookie = client.get_cookie("bgpanet")
    assert cookie is not None
    assert secret not in str(serializer.loads(cookie.value))


def test_signing_out_ends_the_session(sign_in: SignIn) -> None:
    client = sign_in()
    assert client.post("/logout", data={"csrf": csrf_of(client.get("/jobs"))}).headers["Location"] == "/login"
    assert client.get("/jobs").status_code == 302


def _forms(job_id: str) -> list[str]:
    return ["/logout", f"/jobs/{job_id}/cancel"]


@pytest.mark.parametrize("csrf", [None, "", "wrong", "é"])
def test_a_form_without_this_sessions_token_changes_nothing(made: Service, sign_in: SignIn, csrf: str | None) -> None:
    add_datasets(made)
    job_id, client = made.submit(), sign_in()
    for path in _forms(job_id):
        assert client.post(path, data={} if csrf is None else {"csrf": csrf}).status_code == 403
    assert views.get_job(made.context.database, ADMIN, job_id)["state"] == "queued"
    assert client.get("/jobs").status_code == 200


def test_the_form_token_of_another_session_is_refused(made: Service, sign_in: SignIn) -> None:
    add_datasets(made)
    job_id, stranger, client = made.submit(), sign_in("eve", "researcher"), sign_in()
    foreign = csrf_of(stranger.get("/jobs"))
    assert client.post(f"/jobs/{job_id}/cancel", data={"csrf": foreign}).status_code == 403


def test_another_site_cannot_sign_a_browser_in(made: Service) -> None:
    client, secret = made.app.test_client(), made.token("eve")[1]
    assert client.post("/login", data={"token": secret}).status_code == 403
    assert client.get("/jobs").status_code == 302


def test_another_users_job_does_not_exist(ids: dict[str, str], made: Service, sign_in: SignIn) -> None:
    stranger, owner = sign_in("eve", "researcher"), sign_in("ada", "researcher")
    job = f"/jobs/{ids['succeeded']}"
    for path in (job, f"{job}/curves", f"{job}/logs", f"{job}/artifacts/report.json"):
        assert stranger.get(path).status_code == 404, path
        with owner.get(path) as answer:
            assert answer.status_code == 200, path
    form = {"csrf": csrf_of(stranger.get("/jobs"))}
    assert stranger.post(f"/jobs/{ids['running']}/cancel", data=form).status_code == 404
    assert "long run" not in stranger.get("/jobs").text
    assert "long run" not in stranger.get("/workers").text
    assert "another user" in stranger.get("/workers").text


def test_a_researcher_pauses_resumes_and_tries_again_and_sees_what_a_job_waits_for(
    made: Service, sign_in: SignIn
) -> None:
    add_datasets(made)
    waiting, client = made.submit(), sign_in("ada", "researcher")
    page = client.get(f"/jobs/{waiting}").text
    assert "Next in the queue" in page
    assert "no worker is running" in page
    assert _act(client, waiting, "pause") == 303
    page = client.get(f"/jobs/{waiting}").text
    assert "Paused." in page
    assert f"/jobs/{waiting}/resume" in page
    assert f"/jobs/{waiting}/pause" not in page
    assert _act(client, waiting, "resume") == 303
    lease = made.claim().lease
    assert _act(client, waiting, "pause") == 303
    assert "Asked to pause" in client.get(f"/jobs/{waiting}").text
    jobs.fail(made.context.database, lease, "internal", "broken")
    assert f"/jobs/{waiting}/retry" in client.get(f"/jobs/{waiting}").text
    assert _act(client, waiting, "retry") == 303
    again = views.get_job(made.context.database, ADMIN, waiting)["superseded_by"]
    assert f"/jobs/{again}" in client.get(f"/jobs/{waiting}").text
    assert f"/jobs/{waiting}/retry" not in client.get(f"/jobs/{waiting}").text
    assert f"/jobs/{waiting}" in client.get(f"/jobs/{again}").text


def test_what_can_no_longer_be_done_is_a_page_that_says_why(made: Service, sign_in: SignIn) -> None:
    add_datasets(made)
    job_id, client = made.submit(), sign_in("ada", "researcher")
    jobs.cancel(made.context.database, job_id)
    form = {"csrf": csrf_of(client.get("/jobs"))}
    answer = client.post(f"/jobs/{job_id}/pause", data=form)
    assert answer.status_code == 409
    assert "is cancelled and can&#39;t be paused" in answer.text
    settings = replace(made.context.settings, queued_per_user=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(made.context.__dict__, "settings", settings)
        answer = client.post(f"/jobs/{job_id}/retry", data=form)
    assert answer.status_code == 429
    assert "0 jobs of ada wait already" in answer.text


def test_a_fold_that_was_tried_again_keeps_its_number_and_stands_beside_its_successor(
    made: Service, sign_in: SignIn
) -> None:
    add_datasets(made)
    spec = {**SPEC, "split": {"folds": 3}}
    parent, client = made.submit("cross_validate", spec=spec), sign_in("ada", "researcher")
    failed = made.claim()
    made.say(failed, 1)
    jobs.fail(made.context.database, failed.lease, "internal", "broken")
    assert _act(client, failed.lease.job_id, "retry") == 303
    rows = re.findall(r'<tr id="job-([^"]+)"(.*?)</th>', client.get(f"/jobs/{parent}").text, re.DOTALL)
    assert [text.rpartition(">fold ")[2][0] for _, text in rows] == ["0", "0", "1", "2"]
    assert [job_id for job_id, text in rows if "superseded" in text] == [failed.lease.job_id]
    for epochs in (2, 3, 4):  # folds 1 and 2 waited for longer than the one that is tried again
        made.say(made.claim(), epochs)
    lines = json.loads(client.get(f"/jobs/{parent}/curves").text)[0]["lines"]
    assert {line["name"]: len(line["x"]) for line in lines} == {"fold 0": 4, "fold 1": 2, "fold 2": 3}


def _cancel(client: FlaskClient, job_id: str) -> int:
    return _act(client, job_id, "cancel")


def _act(client: FlaskClient, job_id: str, action: str) -> int:
    return client.post(f"/jobs/{job_id}/{action}", data={"csrf": csrf_of(client.get("/jobs"))}).status_code


def test_a_viewer_sees_and_cannot_cancel(made: Service, sign_in: SignIn) -> None:
    add_datasets(made)
    job_id, client = made.submit(user="vera"), sign_in("vera", "viewer")
    page = client.get(f"/jobs/{job_id}")
    assert page.status_code == 200
    assert "/cancel" not in page.text
    assert _cancel(client, job_id) == 403
    assert views.get_job(made.context.database, ADMIN, job_id)["state"] == "queued"


def test_a_researcher_cancels_what_waits_and_asks_what_runs_to_end(made: Service, sign_in: SignIn) -> None:
    add_datasets(made)
    running, waiting, client = made.submit(), made.submit(), sign_in("ada", "researcher")
    assert made.claim().lease.job_id == running
    for job_id in (running, waiting):
        assert "/cancel" in client.get(f"/jobs/{job_id}").text
    assert _cancel(client, waiting) == 303
    assert "/cancel" not in client.get(f"/jobs/{waiting}").text
    assert views.get_job(made.context.database, ADMIN, waiting)["state"] == "cancelled"
    assert _cancel(client, running) == 303
    assert "Asked to cancel" in client.get(f"/jobs/{running}").text
    assert "Asked to cancel" not in client.get(f"/jobs/{running}").text
