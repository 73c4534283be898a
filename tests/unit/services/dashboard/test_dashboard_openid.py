"""Signing in by OpenID Connect, with a provider that really signs, on loopback."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from joserfc.jwk import RSAKey

from services import tokens
from services.context import Context
from services.settings import OpenID, Settings
from services.web import create_app
from tests.support.databases import make_schema
from tests.support.openid_provider import CLIENT, SECRET, Provider, provider
from tests.unit.services.dashboard.browsing import csrf_of

ADA = {"email": "ada@lab.example", "email_verified": True, "groups": ["staff"]}


@pytest.fixture(scope="module")
def issuer() -> Iterator[Provider]:
    with provider() as made:
        yield made


@pytest.fixture
def desk(issuer: Provider, tmp_path: Path) -> Iterator[FlaskClient]:
    """A browser before it has signed in, at a service that trusts the provider."""
    issuer.claims, issuer.changes, issuer.signed_with = dict(ADA), {}, None
    roles = "staff=researcher,heads=admin"
    given = {
        "ISSUER": issuer.issuer,
        "CLIENT_ID": CLIENT,
        "CLIENT_SECRET": SECRET,
        "ROLES": roles,
        "NAME": "a clinic",
    }
    named = {f"BGPANET_OPENID_{name}": value for name, value in given.items()}
    app = create_app(
        Settings.load({"BGPANET_HOME": str(tmp_path), "BGPANET_REDIS_URL": "redis://127.0.0.1:1/0", **named})
    )
    context: Context = app.extensions["bgpanet"]
    make_schema(context.database.url)
    yield app.test_client()
    context.database.close()
    context.celery.close()


def come_back(desk: FlaskClient, issuer: Provider, path: str = "/login/openid") -> Any:
    """Goes to the provider and back, as a browser does. Returns the answer to its return."""
    sent = desk.get(path)
    assert sent.status_code == 302, sent.text
    arrived = desk.get(issuer.authorize(sent.headers["Location"]))
    onward = re.search(r'url=([^"]+)"', arrived.text)  # it leads to itself, so that the cookie comes along
    assert onward is not None, arrived.text
    return desk.get(onward.group(1).replace("&amp;", "&"))


def held(desk: FlaskClient) -> list[dict[str, Any]]:
    return tokens.list_tokens(desk.application.extensions["bgpanet"].database)


def test_somebody_of_a_known_group_comes_in_with_its_role_and_where_they_wanted_to(
    desk: FlaskClient, issuer: Provider
) -> None:
    assert "Sign in with a clinic" in desk.get("/login").text
    answer = come_back(desk, issuer, "/login/openid?next=/workers")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/workers")
    assert "ada@lab.example" in desk.get("/jobs").text
    (token,) = held(desk)
    assert (token["user"], token["role"], token["name"]) == ("ada@lab.example", "researcher", tokens.SESSION)
    assert token["expires_at"] == pytest.approx(token["created_at"] + 12 * 3_600_000, abs=60_000)
    assert issuer.asked["code_challenge_method"] == "S256"


def test_the_highest_role_of_all_groups_counts(desk: FlaskClient, issuer: Provider) -> None:
    issuer.claims["groups"] = ["staff", "heads", "others"]
    assert come_back(desk, issuer).status_code == 303
    assert held(desk)[0]["role"] == "admin"


def test_signing_out_ends_the_session_s_token_and_no_other(desk: FlaskClient, issuer: Provider) -> None:
    tokens.create(desk.application.extensions["bgpanet"].database, "notebook", "ada@lab.example", "researcher")
    come_back(desk, issuer)
    desk.post("/logout", data={"csrf": csrf_of(desk.get("/jobs"))})
    assert {row["name"]: row["revoked_at"] is not None for row in held(desk)} == {
        tokens.SESSION: True,
        "notebook": False,
    }
    assert desk.get("/jobs").status_code == 302


@pytest.mark.parametrize(
    ("claims", "words"),
    [
        ({"groups": []}, "is in no group"),
        ({"groups": "other"}, "is in no group"),
        ({"groups": None}, "is in no group"),
        ({"email_verified": False}, "has not verified"),
        ({"email_verified": "true"}, "has not verified"),
        ({"email": None}, "told no usable"),
        ({"email": "~bob"}, "told no usable"),
    ],
)
def test_whoever_is_not_meant_stays_outside(
    desk: FlaskClient, issuer: Provider, claims: dict[str, Any], words: str
) -> None:
    issuer.claims |= claims
    answer = come_back(desk, issuer)
    assert answer.status_code == 403
    assert words in answer.text
    assert held(desk) == []
    assert desk.get("/jobs").status_code == 302


@pytest.mark.parametrize(
    "changes",
    [{"nonce": "another"}, {"aud": "another"}, {"iss": "https://another.example"}, {"exp": 1}],
    ids=["nonce", "audience", "issuer", "expired"],
)
def test_an_id_token_that_is_not_for_this_sign_in_is_refused(
    desk: FlaskClient, issuer: Provider, changes: dict[str, Any]
) -> None:
    issuer.changes = changes
    assert come_back(desk, issuer).status_code == 401
    assert held(desk) == []


def test_an_id_token_that_another_key_signed_is_refused(desk: FlaskClient, issuer: Provider) -> None:
    issuer.signed_with = RSAKey.generate_key(2048, {"kid": "one"})
    assert come_back(desk, issuer).status_code == 401
    assert held(desk) == []


def test_a_return_that_this_browser_did_not_begin_is_refused(desk: FlaskClient, issuer: Provider) -> None:
    address = issuer.authorize(desk.get("/login/openid").headers["Location"])
    other = desk.application.test_client()
    assert other.get(f"{address}&again=1").status_code == 401
    assert desk.get(f"{address}&again=1").status_code == 303
    assert desk.get(f"{address}&again=1").status_code == 401  # and each return counts once


def test_a_provider_that_refused_or_is_away_is_told(desk: FlaskClient, issuer: Provider, tmp_path: Path) -> None:
    desk.get("/login/openid")
    assert desk.get("/login/openid/back?error=access_denied&again=1").status_code == 401
    away = {**WHOLE, "BGPANET_OPENID_ISSUER": "http://127.0.0.1:1", "BGPANET_HOME": str(tmp_path)}
    app = create_app(Settings.load({**away, "BGPANET_REDIS_URL": "redis://127.0.0.1:1/0"}))
    assert app.test_client().get("/login/openid").status_code == 503
    app.extensions["bgpanet"].database.close()


def test_a_service_without_a_provider_offers_none(tmp_path: Path) -> None:
    app = create_app(Settings.load({"BGPANET_HOME": str(tmp_path), "BGPANET_REDIS_URL": "redis://127.0.0.1:1/0"}))
    client = app.test_client()
    assert "Sign in with" not in client.get("/login").text
    assert client.get("/login/openid").status_code == 404
    app.extensions["bgpanet"].database.close()


WHOLE = {
    "BGPANET_OPENID_ISSUER": "https://id.example",
    "BGPANET_OPENID_CLIENT_ID": "c",
    "BGPANET_OPENID_CLIENT_SECRET": "hidden",
    "BGPANET_OPENID_ROLES": "staff=researcher, *=viewer",
}


def test_the_settings_of_a_provider_are_whole_or_refused() -> None:
    settings = Settings.load(WHOLE)
    made = OpenID("https://id.example", "c", "hidden", (("staff", "researcher"), ("*", "viewer")))
    assert settings.openid == made
    assert Settings.load(settings.environment()).openid == made
    assert "hidden" not in repr(settings)
    for changes, words in (
        ({"BGPANET_OPENID_ROLES": ""}, "BGPANET_OPENID_ROLES, too"),
        ({"BGPANET_OPENID_ROLES": "staff"}, "staff=researcher"),
        ({"BGPANET_OPENID_ROLES": "staff=root"}, "viewer, researcher, admin"),
        ({"BGPANET_OPENID_ISSUER": "http://id.example"}, "https://"),
    ):
        with pytest.raises(ValueError, match=words):
            Settings.load({**WHOLE, **changes})
