"""The page of tokens: seen, made with a secret that is shown once, revoked; and what each role and scope may."""

import re
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select, update
from werkzeug.test import TestResponse

from services import audit, tokens
from services.database import Database, now_ms
from services.settings import ROLES
from services.tables import Token
from services.tokens import NewToken, Principal, Scope
from tests.unit.services.dashboard.browsing import csrf_of, words_of
from tests.unit.services.dashboard.conftest import SignIn
from tests.unit.services.dashboard.full_service import EVIL, Service

PATH = "/settings/tokens"
SECRET = re.compile(r"bgp_[\w-]{43}")
ASKED: dict[str, Any] = {"name": "nightly", "role": "researcher", "scopes": ["submit"], "expires": "30"}
DAY_MS = 24 * 3600 * 1000


def once_of(answer: TestResponse) -> str:
    """What the page's form carries that may be sent only once."""
    found = re.search(r'name="once" value="([^"]+)"', answer.text)
    assert found is not None
    return found.group(1)


def send(client: FlaskClient, **changes: Any) -> TestResponse:
    """Opens the page and sends its form."""
    page = client.get(PATH)
    carried = {"csrf": csrf_of(page), "once": once_of(page)}
    return client.post(PATH, data={**ASKED, **carried, **changes})


def with_scopes(made: Service, sign_in: SignIn, *scopes: Scope, **more: Any) -> FlaskClient:
    """Ada's browser, with a token of only these scopes."""
    new = NewToken("narrow", "ada", scopes=scopes, **more)
    return sign_in(secret=tokens.issue(made.context.database, Principal("ada", "researcher"), new)[1])


def of(database: Database, user: str, name: str = "nightly") -> dict[str, Any]:
    """The one token of that name."""
    (found,) = [row for row in tokens.list_tokens(database, user) if row["name"] == name]
    return found


def _now(database: Database) -> int:
    with database.read() as session:
        return session.scalar(select(now_ms())) or 0


def test_a_token_is_made_and_its_secret_is_shown_on_one_page_only(
    made: Service, sign_in: SignIn, caplog: pytest.LogCaptureFixture
) -> None:
    client, database = sign_in("ada", "researcher"), made.context.database
    page = client.get(PATH)
    form = {**ASKED, "csrf": csrf_of(page), "once": once_of(page)}
    answer = client.post(PATH, data=form)
    (secret,) = SECRET.findall(answer.text)
    assert (answer.status_code, answer.headers["Cache-Control"]) == (201, "no-store")
    held = of(database, "ada")
    scopes = frozenset[Scope](("read", "submit"))
    assert tokens.verify(database, secret) == Principal("ada", "researcher", scopes, held["id"], held["expires_at"])
    assert abs(held["expires_at"] - held["created_at"] - 30 * DAY_MS) < 60_000
    for shown in (client.get(PATH), client.post(PATH, data=form, follow_redirects=True)):
        assert shown.status_code == 200
        assert secret not in shown.text
    with client.session_transaction() as session:
        assert secret not in str(dict(session))
    assert secret not in caplog.text
    assert of(database, "ada") == held, "sending the same form again makes no second one"


def test_making_one_stands_in_the_audit_trail_without_its_secret(made: Service, sign_in: SignIn) -> None:
    send(sign_in("ada", "researcher"))
    entry = audit.list_entries(made.context.database, action="token.create")[0][0]
    told = {"name": "nightly", "user": "ada", "role": "researcher", "scopes": ["read", "submit"]}
    assert (entry["user"], entry["subject"]) == ("ada", of(made.context.database, "ada")["id"])
    assert entry["detail"] == {**told, "expires_at": of(made.context.database, "ada")["expires_at"]}


def test_everything_that_is_wrong_stands_beside_its_field_and_what_was_typed_stays(
    made: Service, sign_in: SignIn
) -> None:
    answer = send(sign_in(), name=" ", user=EVIL, role="king", scopes=["manage", "rule"], expires="someday")
    assert answer.status_code == 422
    for field in ("name", "role", "scopes", "expires"):
        assert f'id="problem-{field}"' in answer.text
    assert 'id="problem-user"' not in answer.text
    assert "4 things to correct" in words_of(answer)
    assert re.search(r'<div class="problem"[^>]* autofocus>', answer.text), "the page opens there"
    assert 'value="&lt;script&gt;alert(1)&lt;/script&gt;"' in answer.text
    assert EVIL not in answer.text
    assert re.search(r'value="manage" checked', answer.text)
    assert not re.search(r'value="submit" checked', answer.text)


def test_one_sees_one_s_own_and_an_admin_sees_all(made: Service, sign_in: SignIn) -> None:
    database = made.context.database
    tokens.create(database, "hers", "ada", "researcher")
    tokens.create(database, EVIL, "bob", "researcher")
    ada, admin = words_of(sign_in("ada", "researcher").get(PATH)), sign_in()
    assert "hers researcher read, submit, manage" in ada
    assert EVIL not in ada
    assert f"{EVIL} bob" in words_of(admin.get(PATH))
    assert EVIL not in words_of(admin.get(f"{PATH}?user=ada"))
    assert EVIL not in words_of(sign_in("ada", "researcher").get(f"{PATH}?user=bob"))
    assert EVIL not in admin.get(PATH).text
    assert "mallory has none that can be used" in words_of(admin.get(f"{PATH}?user=mallory"))


def test_revoked_and_expired_ones_are_shown_only_when_they_are_asked_for(made: Service, sign_in: SignIn) -> None:
    database, client = made.context.database, sign_in("ada", "researcher")
    tokens.revoke(database, tokens.create(database, "given-back", "ada", "researcher")[0])
    long_ago = tokens.create(database, "long-ago", "ada", "researcher")[0]
    with database.write() as session:
        session.execute(update(Token).where(Token.id == long_ago).values(expires_at=now_ms() - 1))
    short, whole = words_of(client.get(PATH)), words_of(client.get(f"{PATH}?all=1"))
    assert "given-back" not in short
    assert "long-ago" not in short
    assert "given-back" in whole
    assert " revoked " in whole
    assert " expired " in whole


def test_many_tokens_come_in_pages(made: Service, sign_in: SignIn) -> None:
    client = sign_in("ada", "researcher")
    for number in range(60):
        tokens.create(made.context.database, f"number-{number:02}", "ada", "researcher")
    seen = re.findall(r'"long">(number-\d\d)<', client.get(PATH).text)
    following = re.search(r'rel="next" href="([^"]+)"', client.get(PATH).text)
    assert following is not None
    seen += re.findall(r'"long">(number-\d\d)<', client.get(following.group(1)).text)
    assert seen == [f"number-{number:02}" for number in reversed(range(60))]


def test_a_token_is_revoked_with_a_question_before_and_no_script(made: Service, sign_in: SignIn) -> None:
    database, client = made.context.database, sign_in("ada", "researcher")
    token_id, secret = tokens.create(database, "old", "ada", "researcher")
    page = client.get(PATH)
    form = re.search(rf'<details class="confirm">(?:(?!</details>).)*{token_id}/revoke.*?</details>', page.text, re.S)
    assert form is not None
    assert "That can't be undone" in form.group().replace("&#39;", "'")
    assert client.post(f"{PATH}/{token_id}/revoke", data={"csrf": csrf_of(page)}).status_code == 303
    assert tokens.verify(database, secret) is None
    assert client.post(f"{PATH}/{token_id}/revoke", data={"csrf": csrf_of(page)}).status_code == 404


def test_nobody_revokes_another_s_but_an_admin(made: Service, sign_in: SignIn) -> None:
    token_id, secret = tokens.create(made.context.database, "hers", "ada", "researcher")
    for user, role, status in (("bob", "researcher", 404), ("root", "admin", 303)):
        client = sign_in(user, role)
        assert tokens.verify(made.context.database, secret) is not None
        form = {"csrf": csrf_of(client.get(PATH))}
        assert client.post(f"{PATH}/{token_id}/revoke", data=form).status_code == status
    assert tokens.verify(made.context.database, secret) is None


def test_a_token_that_may_not_manage_gets_no_form_and_is_refused_but_can_end_itself(
    made: Service, sign_in: SignIn
) -> None:
    database = made.context.database
    client = with_scopes(made, sign_in, "read", "submit")
    other, narrow = tokens.create(database, "other", "ada", "researcher")[0], of(database, "ada", "narrow")["id"]
    page = client.get(PATH)
    assert "Make the token" not in page.text
    assert f"{other}/revoke" not in page.text
    assert "needs one with the scope manage" in words_of(page)
    form = {**ASKED, "csrf": csrf_of(page)}
    assert client.post(PATH, data=form).status_code == 403
    assert client.post(f"{PATH}/{other}/revoke", data=form).status_code == 403
    assert client.post(f"{PATH}/{narrow}/revoke", data=form).status_code == 303
    assert client.get(PATH).headers["Location"].startswith("/login")


@pytest.mark.parametrize(
    "changes",
    [{"role": "admin"}, {"user": "bob"}, {"scopes": ["submit"]}, {"expires": "never"}, {"expires": "365"}],
    ids=lambda changes: "=".join(map(str, *changes.items())),
)
def test_what_a_token_makes_can_do_no_more_and_holds_no_longer(
    made: Service, sign_in: SignIn, changes: dict[str, Any]
) -> None:
    database = made.context.database
    soon = _now(database)
    client = with_scopes(made, sign_in, "read", "manage", expires_at=soon + 8 * DAY_MS)
    allowed = {"scopes": ["manage"], "expires": "7", "user": ""}
    assert send(client, **allowed).status_code == 201
    answer = send(client, **{**allowed, **changes})
    assert answer.status_code == 403
    assert not SECRET.search(answer.text)
    assert 'value="nightly"' in answer.text, "what was typed stays"
    assert len([row for row in tokens.list_tokens(database) if row["name"] == "nightly"]) == 1


def test_what_may_not_be_chosen_is_not_offered(made: Service, sign_in: SignIn) -> None:
    soon = _now(made.context.database)
    page = with_scopes(made, sign_in, "read", "manage", expires_at=soon + 8 * DAY_MS).get(PATH).text
    assert set(re.findall(r'<option value="([^"]+)"', page)) == {*ROLES[:2], "7", "with-this"}
    assert re.findall(r'name="scopes" value="([^"]+)"', page) == ["manage"]
    assert 'name="user"' not in page
    assert 'value="never"' in sign_in().get(PATH).text


def test_forms_from_elsewhere_make_and_revoke_nothing(made: Service, sign_in: SignIn) -> None:
    client, database = sign_in("ada", "researcher"), made.context.database
    held = tokens.list_tokens(database)
    ids = [row["id"] for row in held]
    for path in (PATH, f"{PATH}/{held[0]['id']}/revoke"):
        assert client.post(path, data={**ASKED, "csrf": "guessed"}).status_code == 403
    assert [row["id"] for row in tokens.list_tokens(database, is_holding=True)] == ids


def test_settings_begin_with_tokens(sign_in: SignIn) -> None:
    client = sign_in("ada", "researcher")
    assert client.get("/settings").headers["Location"] == PATH
    page = client.get(PATH).text
    assert 'href="/settings" aria-current="page"' in page
    assert "/settings/audit" not in page
    assert "/settings/audit" in sign_in().get(PATH).text
