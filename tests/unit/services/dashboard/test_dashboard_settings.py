"""The pages of projects, webhooks and the audit trail: what they show, every form, and who may send it."""

import re
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import insert, select, text, update
from werkzeug.test import TestResponse

from bgpanet.text import MISSING
from services import audit, projects, tokens, webhooks
from services.audit import Act, Head
from services.dashboard import audit as audit_page
from services.ids import new_id
from services.projects import NewProject
from services.tables import AuditEntry, Delivery, Webhook
from services.tokens import NewToken, Principal, Role, Scope
from services.webhooks import NewWebhook
from tests.unit.services.dashboard.browsing import csrf_of, words_of
from tests.unit.services.dashboard.conftest import SignIn
from tests.unit.services.dashboard.full_service import EVIL, Service, add_datasets
from tests.unit.services.dashboard.test_dashboard_settings_tokens import once_of

ADA, BOB, ROOT = Principal("ada", "researcher"), Principal("bob", "researcher"), Principal("root", "admin")
SECRET = re.compile(r"whsec_[\w+/=]{40,}")
LONG = "a-name-without-a-place-to-break-it-" * 5
ADDRESS = "https://lab.example.org/hook"


def post(client: FlaskClient, path: str, **form: Any) -> TestResponse:
    """Sends a form of this session."""
    return client.post(path, data={"csrf": csrf_of(client.get("/jobs")), **form})


def with_scopes(made: Service, sign_in: SignIn, *scopes: Scope, user: str = "ada", role: Role = "researcher") -> Any:
    """A browser whose token has only these scopes."""
    new = NewToken("narrow", user, role, scopes=scopes)
    return sign_in(secret=tokens.issue(made.context.database, Principal(user, role), new)[1])


# ── Projects ──────────────────────────────────────────────────────────────────────────────────────────────────────


def members(made: Service, project: str = "derma") -> dict[str, str]:
    rows = projects.list_members(made.context.database, ROOT, project)
    return {row["user"]: row["role"] for row in rows}


@pytest.fixture
def derma(made: Service) -> str:
    """The page of Ada's project, in which Bob is a viewer."""
    projects.create(made.context.database, ADA, NewProject("derma", EVIL))
    projects.put_member(made.context.database, ADA, "derma", "bob", "viewer")
    return "/settings/projects/derma"


def test_without_projects_one_is_told_what_to_do(sign_in: SignIn) -> None:
    assert "No projects yet Make one below" in words_of(sign_in("ada", "researcher").get("/settings/projects"))
    page = sign_in("eve", "viewer").get("/settings/projects")
    assert "adds you as a member" in words_of(page)
    assert "Make the project" not in page.text


def test_a_project_is_made_and_its_maker_is_its_admin(made: Service, sign_in: SignIn) -> None:
    client = sign_in("ada", "researcher")
    answer = post(client, "/settings/projects", id="derma", title="Dermoscopy study")
    assert answer.headers["Location"] == "/settings/projects/derma"
    assert members(made) == {"ada": "admin"}
    assert "derma Dermoscopy study admin" in words_of(client.get("/settings/projects"))
    assert "derma" not in words_of(sign_in("bob", "researcher").get("/settings/projects"))
    assert "derma Dermoscopy study no member" in words_of(sign_in().get("/settings/projects"))


@pytest.mark.parametrize(("given", "status"), [("Not One", 422), ("shared", 422), ("", 422), ("taken", 409)])
def test_what_is_wrong_with_a_project_stands_at_its_field(
    made: Service, sign_in: SignIn, given: str, status: int
) -> None:
    projects.create(made.context.database, BOB, NewProject("taken", "His"))
    answer = post(sign_in("ada", "researcher"), "/settings/projects", id=given, title=EVIL)
    assert answer.status_code == status
    assert 'id="problem-id"' in answer.text
    assert "&lt;script&gt;" in answer.text
    assert EVIL not in answer.text
    assert "His" not in answer.text


def test_members_are_added_changed_and_removed(made: Service, derma: str, sign_in: SignIn) -> None:
    client = sign_in("ada", "researcher")
    assert post(client, f"{derma}/members", user=LONG, role="researcher").status_code == 303
    assert post(client, f"{derma}/members", user="bob", role="researcher").status_code == 303
    assert members(made) == {LONG: "researcher", "ada": "admin", "bob": "researcher"}
    page = client.get(derma)
    assert EVIL in words_of(page)
    assert EVIL not in page.text
    assert post(client, f"{derma}/members/drop", user=LONG).status_code == 303
    assert members(made) == {"ada": "admin", "bob": "researcher"}


def test_what_is_wrong_with_a_member_stands_at_its_field(made: Service, derma: str, sign_in: SignIn) -> None:
    answer = post(sign_in("ada", "researcher"), f"{derma}/members", user="x" * 201, role="king")
    assert answer.status_code == 422
    assert 'id="problem-user"' in answer.text
    assert 'id="problem-role"' in answer.text
    assert f'value="{"x" * 201}"' in answer.text
    assert members(made) == {"ada": "admin", "bob": "viewer"}


def test_one_admin_always_stays(made: Service, derma: str, sign_in: SignIn) -> None:
    client = sign_in("ada", "researcher")
    for path, form in (("members", {"user": "ada", "role": "viewer"}), ("members/drop", {"user": "ada"})):
        answer = post(client, f"{derma}/{path}", **form)
        assert answer.status_code == 409
        assert "ada is the only admin of project derma; make another member one first." in words_of(answer)
    assert members(made)["ada"] == "admin"


def test_who_is_no_admin_of_a_project_sees_no_forms_is_refused_and_may_leave(
    made: Service, derma: str, sign_in: SignIn
) -> None:
    client = sign_in("bob", "researcher")
    page = client.get(derma)
    assert "ada" in words_of(page)
    assert "Add a member" not in page.text
    assert page.text.count("/members/drop") == 1, "one's own"
    for path, form in (
        ("members", {"user": "bob", "role": "admin"}),
        ("members/drop", {"user": "ada"}),
        ("remove", {}),
    ):
        assert post(client, f"{derma}/{path}", **form).status_code == 403
    assert members(made) == {"ada": "admin", "bob": "viewer"}
    answer = post(client, f"{derma}/members/drop", user="bob")
    assert answer.headers["Location"] == "/settings/projects"
    assert members(made) == {"ada": "admin"}
    assert client.get(derma).status_code == 404


def test_a_token_that_may_not_manage_changes_no_project(made: Service, derma: str, sign_in: SignIn) -> None:
    client = with_scopes(made, sign_in, "read", "submit")
    for page in ("/settings/projects", derma):
        assert 'method="post" action="/settings' not in client.get(page).text
    for path, form in (
        ("/settings/projects", {"id": "another"}),
        (f"{derma}/members", {"user": "eve", "role": "viewer"}),
        (f"{derma}/members/drop", {"user": "bob"}),
        (f"{derma}/remove", {}),
    ):
        assert post(client, path, **form).status_code == 403
    assert members(made) == {"ada": "admin", "bob": "viewer"}
    assert [row["id"] for row in projects.list_projects(made.context.database, ROOT)] == ["derma"]


def test_a_viewer_s_token_makes_no_project(made: Service, sign_in: SignIn) -> None:
    assert post(sign_in("eve", "viewer"), "/settings/projects", id="hers").status_code == 403
    assert projects.list_projects(made.context.database, ROOT) == []


def test_only_an_empty_project_is_removed(made: Service, derma: str, sign_in: SignIn) -> None:
    client = sign_in("ada", "researcher")
    add_datasets(made)
    made.submit(project="derma")
    answer = post(client, f"{derma}/remove")
    assert answer.status_code == 409
    assert "there are jobs in project derma" in words_of(answer)
    post(client, "/settings/projects", id="empty")
    assert post(client, "/settings/projects/empty/remove").status_code == 303
    assert [row["id"] for row in projects.list_projects(made.context.database, ROOT)] == ["derma"]


# ── Webhooks ──────────────────────────────────────────────────────────────────────────────────────────────────────


def hook_of(made: Service, principal: Principal = ADA, url: str = ADDRESS) -> str:
    return str(webhooks.create(made.context.database, principal, NewWebhook(url, ["failed"]), ())[0]["id"])


def told(made: Service, webhook_id: str, **changes: Any) -> str:
    """A delivery to a webhook. Returns its id."""
    values: dict[str, Any] = {"state": "waiting", "tries": 0, "tries_left": 3, "next_at": 0, "created_at": 0}
    values |= {"id": new_id(), "webhook_id": webhook_id, "event": "ping", "facts": {}, **changes}
    with made.context.database.write() as session:
        session.execute(insert(Delivery).values(**values))
    return str(values["id"])


def send_hook(client: FlaskClient, **changes: Any) -> TestResponse:
    page = client.get("/settings/webhooks")
    form = {"url": ADDRESS, "states": ["failed", "succeeded"], "csrf": csrf_of(page), "once": once_of(page)}
    return client.post("/settings/webhooks", data={**form, **changes})


def test_a_webhook_is_made_and_its_secret_is_shown_on_one_page_only(
    made: Service, sign_in: SignIn, caplog: pytest.LogCaptureFixture
) -> None:
    client, database = sign_in("ada", "researcher"), made.context.database
    assert "No webhooks yet Name an address below" in words_of(client.get("/settings/webhooks"))
    page = client.get("/settings/webhooks")
    form = {"url": ADDRESS, "states": ["failed"], "children": "true", "csrf": csrf_of(page), "once": once_of(page)}
    answer = client.post("/settings/webhooks", data=form)
    (secret,) = SECRET.findall(answer.text)
    with database.read() as session:
        row = session.scalars(select(Webhook)).one()
    assert (answer.status_code, row.secret, row.states, row.children) == (201, secret, ["failed"], True)
    assert (row.everyone, row.created_by) == (False, "ada")
    repeated = client.post("/settings/webhooks", data=form, follow_redirects=True)
    for shown in (repeated, client.get(f"/settings/webhooks/{row.id}")):
        assert shown.status_code == 200
        assert secret not in shown.text
    with client.session_transaction() as session_:
        assert secret not in str(dict(session_))
    assert secret not in caplog.text
    assert len(webhooks.list_all(database, ADA)) == 1


def test_everything_that_is_wrong_with_a_webhook_stands_at_its_field(made: Service, sign_in: SignIn) -> None:
    client = sign_in("ada", "researcher")
    nothing = send_hook(client, url="", states=["sometimes"])
    assert nothing.status_code == 422
    assert "2 things to correct" in words_of(nothing)
    assert 'id="problem-states"' in nothing.text
    inner = send_hook(client, url="http://127.0.0.1/x", states=["failed"])
    assert inner.status_code == 422
    assert 'id="problem-url"' in inner.text
    assert 'value="http://127.0.0.1/x"' in inner.text
    assert 'value="succeeded" checked' not in inner.text
    assert webhooks.list_all(made.context.database, ROOT) == []


def test_there_is_a_most_of_webhooks(made: Service, sign_in: SignIn) -> None:
    for _ in range(webhooks.MOST_OF_USER):
        hook_of(made)
    answer = send_hook(sign_in("ada", "researcher"))
    assert answer.status_code == 409
    assert "which is the most" in words_of(answer)


def test_webhooks_for_everyone_s_jobs_are_for_admins(made: Service, sign_in: SignIn) -> None:
    client = sign_in("ada", "researcher")
    assert 'name="everyone"' not in client.get("/settings/webhooks").text
    assert send_hook(client, everyone="true").status_code == 403
    assert send_hook(sign_in(), everyone="true").status_code == 201
    assert [row["everyone"] for row in webhooks.list_all(made.context.database, ROOT)] == [True]


def test_deliveries_are_shown_with_attempts_answers_and_the_next_try(made: Service, sign_in: SignIn) -> None:
    webhook_id, client = hook_of(made), sign_in("ada", "researcher")
    path = f"/settings/webhooks/{webhook_id}"
    assert "Nothing here It is told when the next job ends" in words_of(client.get(path))
    facts = {"id": "j", "name": EVIL}
    told(made, webhook_id, event="job.failed", job_id="j", facts=facts, state="given_up", tries=10, error=f"no {EVIL}")
    told(made, webhook_id, tries=2, status=503, error="it answered 503", next_at=4_102_444_800_000)
    told(made, webhook_id, state="delivered", tries=1, status=204)
    page = client.get(path)
    assert EVIL not in page.text
    words = words_of(page)
    assert re.search(rf"job\.failed {re.escape(EVIL)} given up 10 no {re.escape(EVIL)} {MISSING}", words)
    assert re.search(r"ping waiting 2 it answered 503 in \d+ days", words)
    assert f"ping delivered 1 204 {MISSING}" in words
    assert "data-active" in page.text, "something waits, so the page asks again"
    given_up = client.get(f"{path}?state=given_up")
    assert "delivered 1" not in words_of(given_up)
    assert "data-active" not in given_up.text
    live = client.get(path, headers={"X-Live": "1"}).text
    assert live.lstrip().startswith('<section id="deliveries"')


def test_many_deliveries_come_in_pages(made: Service, sign_in: SignIn) -> None:
    webhook_id, client = hook_of(made), sign_in("ada", "researcher")
    ids = [told(made, webhook_id) for _ in range(60)]
    path, seen = f"/settings/webhooks/{webhook_id}", []
    for _ in range(2):
        page = client.get(path).text
        seen += re.findall(r'id="delivery-([^"]+)"', page)
        following = re.search(r'rel="next" href="([^"]+)"', page)
        path = following.group(1) if following else path
    assert seen == ids[::-1]


def test_a_webhook_is_tried_out_told_again_and_removed(made: Service, sign_in: SignIn) -> None:
    webhook_id, client, database = hook_of(made), sign_in("ada", "researcher"), made.context.database
    path = f"/settings/webhooks/{webhook_id}"
    old = told(made, webhook_id, state="given_up", tries=10, tries_left=0, ended_at=1)
    assert post(client, f"{path}/ping").headers["Location"] == path
    assert post(client, f"{path}/deliveries/{old}/repeat").headers["Location"] == path
    states = {row["id"]: row["state"] for row in webhooks.deliveries(database, ADA, webhook_id).items}
    assert (len(states), set(states.values())) == (2, {"waiting"})
    assert "What it was told, and was yet to be told, goes with it." in words_of(client.get(path))
    assert post(client, f"{path}/remove").headers["Location"] == "/settings/webhooks"
    assert webhooks.list_all(database, ROOT) == []
    assert client.get(path).status_code == 404


def test_a_webhook_is_switched_off_and_on_and_its_pages_say_so(made: Service, sign_in: SignIn) -> None:
    webhook_id, client, database = hook_of(made), sign_in("ada", "researcher"), made.context.database
    path, waiting = f"/settings/webhooks/{webhook_id}", told(made, webhook_id)
    assert "State on" in words_of(client.get(path))
    assert "Switch off" in words_of(client.get(path))
    assert post(client, f"{path}/off").headers["Location"] == path
    page = client.get(path)
    words = words_of(page)
    assert "State off" in words
    assert "ping waiting 0 none yet held" in words
    assert "data-active" not in page.text, "nothing happens, so the page does not ask again"
    assert f'action="{path}/on"' in page.text
    for gone in (f"{path}/off", f"{path}/ping", f"{path}/deliveries/{waiting}/repeat"):
        assert f'action="{gone}"' not in page.text
    assert re.search(r"example\.org\S* off failed", words_of(client.get("/settings/webhooks")))
    for late in ("ping", f"deliveries/{waiting}/repeat"):  # of a page that was open before
        answer = post(client, f"{path}/{late}")
        assert answer.status_code == 409
        assert "switch it on" in words_of(answer)
    assert post(client, f"{path}/on").headers["Location"] == path
    assert webhooks.get(database, ADA, webhook_id)["active"]
    assert f'action="{path}/ping"' in client.get(path).text
    with database.read() as session:
        entries = session.execute(select(AuditEntry.action, AuditEntry.detail).order_by(AuditEntry.number)).all()
    assert [tuple(entry) for entry in entries[-2:]] == [
        ("webhook.change", '{"active":false}'),
        ("webhook.change", '{"active":true}'),
    ]


def test_who_is_no_admin_any_more_switches_off_what_hears_of_all_jobs_and_not_on(
    made: Service, sign_in: SignIn
) -> None:
    new, database = NewWebhook(ADDRESS, ["failed"], everyone=True), made.context.database
    path = f"/settings/webhooks/{webhooks.create(database, Principal('ada', 'admin'), new, ())[0]['id']}"
    client = sign_in("ada", "researcher")
    assert post(client, f"{path}/off").status_code == 303
    assert f'action="{path}/on"' not in client.get(path).text
    assert post(client, f"{path}/on").status_code == 403
    assert [row["active"] for row in webhooks.list_all(database, ADA)] == [False]
    assert f'action="{path}/on"' in sign_in().get(path).text


@pytest.mark.parametrize("who", ["viewer", "reads only"])
def test_who_may_not_submit_gets_no_forms_and_is_refused(made: Service, sign_in: SignIn, who: str) -> None:
    webhook_id = hook_of(made)
    delivery = told(made, webhook_id)
    viewer = who == "viewer"
    client = sign_in("ada", "viewer") if viewer else with_scopes(made, sign_in, "read", "manage")
    path = f"/settings/webhooks/{webhook_id}"
    for page in ("/settings/webhooks", path):
        assert 'method="post" action="/settings' not in client.get(page).text
    routes = ("ping", "off", "on", "remove", f"deliveries/{delivery}/repeat")
    for address in ("/settings/webhooks", *(f"{path}/{route}" for route in routes)):
        assert post(client, address, url=ADDRESS, states="failed").status_code == 403
    assert [row["active"] for row in webhooks.list_all(made.context.database, ROOT)] == [True]


def test_forms_from_elsewhere_change_nothing(made: Service, derma: str, sign_in: SignIn) -> None:
    client = sign_in()
    webhook_id = hook_of(made)
    hook = f"/settings/webhooks/{webhook_id}"
    delivery = told(made, webhook_id)
    for path in (
        "/settings/projects",
        f"{derma}/members",
        f"{derma}/members/drop",
        f"{derma}/remove",
        "/settings/webhooks",
        f"{hook}/ping",
        f"{hook}/off",
        f"{hook}/on",
        f"{hook}/remove",
        f"{hook}/deliveries/{delivery}/repeat",
        "/settings/audit/verify",
    ):
        form = {"csrf": "guessed", "id": "new", "user": "bob", "role": "admin", "url": ADDRESS, "states": "failed"}
        assert client.post(path, data=form).status_code == 403, path
    assert members(made) == {"ada": "admin", "bob": "viewer"}
    assert [row["active"] for row in webhooks.list_all(made.context.database, ROOT)] == [True]
    assert len(webhooks.deliveries(made.context.database, ROOT, webhook_id).items) == 1


# ── The audit trail ───────────────────────────────────────────────────────────────────────────────────────────────

AUDIT = "/settings/audit"


def note(made: Service, user: str, action: str, subject: str = "", **more: Any) -> int:
    """An entry of the trail. Returns its number."""
    audit.note(made.context.database, Act(Principal(user, "researcher"), action, subject, **more))
    return int(audit.list_entries(made.context.database, limit=1)[0][0]["number"])


def numbers(answer: TestResponse) -> list[int]:
    return [int(found) for found in re.findall(r'title="SHA-256 [0-9a-f]{64}">(\d+)<', answer.text)]


def test_the_trail_is_for_admins(made: Service, sign_in: SignIn) -> None:
    for role in ("researcher", "viewer"):
        client = sign_in("ada", role)
        assert client.get(AUDIT).status_code == 403
        assert post(client, f"{AUDIT}/verify").status_code == 403
    assert with_scopes(made, sign_in, "read", user="root", role="admin").get(AUDIT).status_code == 200


def test_entries_are_told_in_words_with_what_they_were_done_to(made: Service, sign_in: SignIn) -> None:
    add_datasets(made)
    client, job = sign_in(), made.submit()
    note(made, "ada", "job.cancel", job, project="~ada", detail={"name": EVIL, "parts": [1, 2], "ends_at": 0})
    note(made, "bob", "request", "/api/v1/jobs/x", detail={"method": "POST", "status": 404}, outcome="refused")
    note(made, LONG, "comet.land", "Tempel 1")
    page = client.get(AUDIT)
    assert EVIL not in page.text
    words = words_of(page)
    assert f"ada cancelled a job ends at 1970-01-01 00:00:00 UTC name {EVIL} parts 1, 2 {job} ~ada" in words
    assert f'href="/jobs/{job}"' in page.text
    assert "bob sent a request refused method POST status 404 /api/v1/jobs/x" in words
    assert f"{LONG} comet.land Tempel 1" in words


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("user=ada", [4, 3]),
        ("action=job.submit", [5, 3]),
        ("subject=a-job", [3]),
        ("project=derma", [5]),
        ("user=ada&action=member.put", [4]),
        ("since=2026-03-02&until=2026-03-03", [4, 3]),
        ("until=2026-03-01", [2]),
        ("since=2026-03-04", [5, 1]),
        ("user=nobody", []),
    ],
)
def test_entries_are_found_by_who_what_where_and_when(
    made: Service, sign_in: SignIn, asked: str, found: list[int]
) -> None:
    client = sign_in()  # entry 1
    note(made, "bob", "webhook.create")
    note(made, "ada", "job.submit", "a-job")
    note(made, "ada", "member.put")
    note(made, "bob", "job.submit", project="derma")
    with made.context.database.write() as session:
        session.execute(text("DROP TRIGGER audit_update"))  # so that their days may be chosen
        days = {1: 1_900_000_000_000, 2: 1_772_409_599_999, 3: 1_772_409_600_000, 4: 1_772_582_399_999}
        for number, at in {**days, 5: 1_772_582_400_000}.items():
            session.execute(update(AuditEntry).where(AuditEntry.number == number).values(at=at))
    answer = client.get(f"{AUDIT}?{asked}")
    assert numbers(answer) == found
    if not found:
        assert "Nothing was done that fits" in words_of(answer)


def test_a_day_that_is_none_is_told_at_its_field_and_kept(sign_in: SignIn) -> None:
    answer = sign_in().get(f"{AUDIT}?since=yesterday&until=9999-99-99&cursor=-1")
    assert answer.status_code == 200
    assert 'id="problem-since"' in answer.text
    assert 'id="problem-until"' in answer.text
    assert 'value="yesterday"' in answer.text
    assert sign_in().get(f"{AUDIT}?since=0001-01-01&until=9999-12-31&cursor={'9' * 30}").status_code == 200


def test_the_trail_comes_in_pages_that_keep_their_filters(made: Service, sign_in: SignIn) -> None:
    client = sign_in()
    kept = [note(made, "ada", "job.submit", str(n)) for n in range(60) if n == 0 or note(made, "bob", "job.submit")]
    path, seen = f"{AUDIT}?user=ada", []
    for _ in range(2):
        page = client.get(path)
        seen += numbers(page)
        following = re.search(r'rel="next" href="([^"]+)"', page.text)
        path = following.group(1).replace("&amp;", "&") if following else path
    assert seen == kept[::-1]


def test_a_trail_that_nobody_touched_is_verified_with_the_number_of_its_entries(made: Service, sign_in: SignIn) -> None:
    client = sign_in()
    note(made, "ada", "job.submit")
    last = note(made, "ada", "job.submit")
    words = words_of(post(client, f"{AUDIT}/verify"))
    head = audit.verify(made.context.database).head
    assert head.number == last
    assert f"The trail holds. {last} entries were checked" in words
    assert str(head) in words
    assert "The trail holds" not in words_of(client.get(AUDIT)), "it is not read unless somebody asks"
    assert "The trail holds." in words_of(post(client, f"{AUDIT}/verify", kept=str(head)))
    other = words_of(post(client, f"{AUDIT}/verify", kept=f"{last}:{'0' * 64}"))
    assert f"The trail is broken. Entry {last} is another one than the head that was kept" in other


def test_a_change_shows(made: Service, sign_in: SignIn) -> None:
    client = sign_in()
    changed = note(made, "ada", "job.submit")
    note(made, "ada", "job.submit")
    with made.context.database.write() as session:
        session.execute(text("DROP TRIGGER IF EXISTS audit_update"))
        session.execute(update(AuditEntry).where(AuditEntry.number == changed).values(user="bob"))
    words = words_of(post(client, f"{AUDIT}/verify"))
    assert f"The trail is broken. Entry {changed} is not what was written" in words
    assert f"Entries 1 to {changed - 1} hold" in words


def test_a_long_trail_is_verified_part_by_part(made: Service, sign_in: SignIn, monkeypatch: pytest.MonkeyPatch) -> None:
    client = sign_in()
    while note(made, "ada", "job.submit") < 7:
        pass
    monkeypatch.setattr(audit_page, "MOST_VERIFIED", 3)
    page, counts = post(client, f"{AUDIT}/verify"), []
    while found := re.search(r'name="begin" value="([^"]+)"', page.text):
        counts.append(Head.parse(found.group(1)).number)
        assert "The trail holds" not in words_of(page)
        page = post(client, f"{AUDIT}/verify", begin=found.group(1))
    assert counts == [3, 6]
    assert "The trail holds. 7 entries were checked" in words_of(page)


@pytest.mark.parametrize("field", ["begin", "kept"])
@pytest.mark.parametrize("given", ["nonsense", f"{2**63}:{'0' * 64}", f"x:{'0' * 64}"])
def test_a_head_that_is_none_is_refused(sign_in: SignIn, field: str, given: str) -> None:
    assert post(sign_in(), f"{AUDIT}/verify", **{field: given}).status_code == 400


def test_one_verification_at_a_time(made: Service, sign_in: SignIn) -> None:
    with audit_page._verifying:
        answer = post(sign_in(), f"{AUDIT}/verify")
    assert answer.status_code == 429
    assert "The trail holds" in words_of(post(sign_in(), f"{AUDIT}/verify"))
