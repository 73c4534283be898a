"""Secrets, schema and first token of a deployment: made once, kept whatever is repeated, never weaker than asked."""

import configparser
import json
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from services import provision, tokens
from services.context import Context
from services.errors import Conflict
from services.settings import Settings

TOKEN = "bgp_Qp3xZt7LrVb2mKc9sNf4wHy6dGj8TeUa"


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context(Settings.load({"BGPANET_HOME": str(tmp_path)}))


def test_every_secret_is_new_and_what_belongs_together_fits(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    assert set(provision.make_secrets(one)) == {path.name for path in one.iterdir()}
    provision.make_secrets(other)
    for path in one.iterdir():
        assert path.read_text() != (other / path.name).read_text(), path.name

    def read(name: str) -> str:
        return (one / name).read_text().strip()

    assert read("postgres_password") in read("database_url")
    assert read("redis.conf") == f"requirepass {read('redis_password')}"
    assert read("redis_url") == f"redis://:{read('redis_password')}@redis:6379/0"
    credentials = configparser.ConfigParser()
    credentials.read(one / "s3_credentials")
    (identity,) = json.loads(read("s3.json"))["identities"]
    assert identity["credentials"] == [
        {
            "accessKey": credentials["default"]["aws_access_key_id"],
            "secretKey": credentials["default"]["aws_secret_access_key"],
        }
    ]


def test_secrets_that_are_there_are_kept_and_no_other_user_of_the_host_gets_at_them(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    provision.make_secrets(folder)
    before = {path.name: path.read_text() for path in folder.iterdir()}
    (folder / "redis_url").unlink()
    assert provision.make_secrets(folder) == ["redis_url"]
    assert {path.name: path.read_text() for path in folder.iterdir()} == before
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_preparing_twice_leaves_one_admin(context: Context) -> None:
    provision.prepare(context, TOKEN)
    assert "known" in provision.prepare(context, TOKEN)[-1]
    owner = tokens.verify(context.database, TOKEN)
    assert owner is not None
    assert owner.is_admin
    assert len(tokens.list_tokens(context.database)) == 1


def test_a_revoked_token_does_not_come_back_with_the_next_start(context: Context) -> None:
    provision.prepare(context, TOKEN)
    tokens.revoke(context.database, tokens.list_tokens(context.database)[0]["id"])
    assert "stays so" in provision.prepare(context, TOKEN)[-1]
    assert tokens.verify(context.database, TOKEN) is None


def test_a_token_that_can_be_guessed_and_somebody_elses_are_refused(context: Context) -> None:
    with pytest.raises(Conflict, match="can be guessed"):
        provision.prepare(context, "admin")
    provision.prepare(context, None)
    tokens.create(context.database, "hers", "eve", "researcher", TOKEN)
    with pytest.raises(Conflict, match="researcher eve"):
        provision.prepare(context, TOKEN)


def test_a_part_that_was_never_heard_of_is_not_alive(context: Context) -> None:
    provision.prepare(context, None)
    assert not provision.worker_lives(context)
    assert not provision.scheduler_leads(context)


def test_sessions_are_signed_with_the_given_key(tmp_path: Path) -> None:
    from services.web import create_app

    settings = replace(Settings.load({"BGPANET_HOME": str(tmp_path)}), session_key="k" * 40)
    assert create_app(settings).secret_key == "k" * 40
    assert not (tmp_path / "session.key").exists()
