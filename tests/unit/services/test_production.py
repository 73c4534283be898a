"""What a deployment refuses to start with, all of it at once, each with what to do; and how it gets its first token."""

import os
import secrets
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import insert

from services import audit, tokens
from services.context import Context
from services.database import Database
from services.errors import Conflict, Insecure
from services.migration import migrate
from services.production import first_token, is_local, is_weak, problems, refuse_if_unsafe
from services.settings import Settings
from services.tables import Dataset
from services.web import create_app
from tests.support.clocked import DATASET
from tests.support.databases import make_schema

GOOD = secrets.token_urlsafe(24)


def settings(home: Path, **variables: str) -> Settings:
    names = {f"BGPANET_{name.upper()}": value for name, value in variables.items()}
    return Settings.load({"BGPANET_HOME": str(home), "BGPANET_REDIS_URL": "redis://127.0.0.1:1/0", **names})


def wrong(home: Path, listens_on: str | None = None, **variables: str) -> str:
    return "\n".join(problems(settings(home, **variables), listens_on))


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "short",
        "0123456789abcde",
        "a" * 40,
        "abababababababababab",
        "changemechangeme",
        "MyPassword-20261127",
        "postgres" * 4,
    ],
)
def test_a_secret_that_can_be_guessed_is_found_out(secret: str) -> None:
    assert is_weak(secret)


def test_a_random_secret_is_none_of_them() -> None:
    for _ in range(200):
        assert not is_weak(secrets.token_hex(24))
        assert not is_weak(secrets.token_urlsafe(24))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost", "", None, "/run/postgresql"])
def test_what_only_this_machine_reaches_is_local(host: str | None) -> None:
    assert is_local(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "redis", "localhost.example.org"])  # noqa: S104
def test_everything_else_is_not(host: str) -> None:
    assert not is_local(host)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("postgresql+psycopg://bgpanet@db/x", "without a password"),
        ("postgresql+psycopg:///x?host=db.internal", "without a password"),
        ("postgresql+psycopg:///x?host=/run/postgresql,db.internal", "without a password"),
        ("postgresql+psycopg://postgres:postgres@db/x", "can be guessed"),
        (f"postgresql+psycopg://bgpanet:{GOOD}@db/x", ""),
        ("postgresql+psycopg://bgpanet@db/x?sslcert=/run/secrets/cert", ""),
        ("postgresql+psycopg://bgpanet@127.0.0.1/x", ""),
        ("postgresql+psycopg:///x?host=/run/postgresql", ""),
    ],
)
def test_a_database_elsewhere_needs_a_password(tmp_path: Path, url: str, problem: str) -> None:
    told = wrong(tmp_path, database_url=url)
    assert problem in told
    assert bool(told) == bool(problem)
    assert not problem or "BGPANET_DATABASE_URL" in told


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("redis://queue.invalid/0", "without a password"),
        ("redis://:redis@queue.invalid/0", "can be guessed"),
        (f"redis://:{GOOD}@queue.invalid/0", ""),
        ("redis://127.0.0.1/0", ""),
        ("redis+socket:///run/redis.sock", ""),
    ],
)
def test_a_redis_elsewhere_needs_a_password(tmp_path: Path, url: str, problem: str) -> None:
    told = wrong(tmp_path, redis_url=url)
    assert problem in told
    assert bool(told) == bool(problem)
    assert not problem or "BGPANET_REDIS_URL" in told


def test_the_keys_of_an_s3_server_elsewhere_are_not_those_of_its_manual(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = {"artifacts_url": "s3://bucket", "s3_endpoint_url": "http://objects:8333"}
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "minioadmin")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "minioadmin")
    assert "can be guessed" in wrong(tmp_path, **away)
    assert wrong(tmp_path, artifacts_url="s3://bucket", s3_endpoint_url="http://127.0.0.1:8333") == ""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", GOOD)
    assert wrong(tmp_path, **away) == ""


# ── The API ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """With a database that has an admin's token."""
    make_schema(settings(tmp_path).database_url)
    first_token(Context(settings(tmp_path)))
    return tmp_path


@pytest.mark.parametrize(
    ("listens_on", "public_url", "is_fine"),
    [
        ("127.0.0.1", "", True),
        ("0.0.0.0", "", False),  # noqa: S104
        ("", "", False),
        ("10.0.0.1", "http://lab.example.org", False),
        ("127.0.0.1", "http://lab.example.org", False),
        ("0.0.0.0", "https://lab.example.org", True),  # noqa: S104
        ("0.0.0.0", "http://127.0.0.1:8080", True),  # noqa: S104 - published on loopback alone
    ],
)
def test_sessions_never_travel_in_plain_http(home: Path, listens_on: str, public_url: str, is_fine: bool) -> None:
    told = wrong(home, listens_on, public_url=public_url)
    assert (told == "") == is_fine
    assert is_fine or "BGPANET_PUBLIC_URL" in told


def test_cookies_behind_tls_are_never_sent_without(home: Path) -> None:
    secret = tokens.create(Context(settings(home)).database, "test", "ada", "admin")[1]
    for public_url, is_https in (("https://lab.example.org", True), ("", False)):
        client = create_app(settings(home, public_url=public_url)).test_client()
        page = client.get("/login", base_url="https://lab.example.org")
        form = page.text.split('name="csrf" value="')[1].split('"')[0]
        answer = client.post(
            "/login", data={"csrf": form, "token": secret}, base_url="https://lab.example.org", follow_redirects=False
        )
        cookie = answer.headers["Set-Cookie"]
        assert ("__Host-bgpanet=" in cookie and "; Secure" in cookie) == is_https
        assert ("Strict-Transport-Security" in answer.headers) == is_https
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie


def test_an_api_without_tables_or_an_admins_token_says_what_to_run(tmp_path: Path) -> None:
    assert "bgpanet migrate" in wrong(tmp_path, "127.0.0.1")
    migrate(settings(tmp_path).database_url)
    tokens.create(Context(settings(tmp_path)).database, "test", "eve", "viewer")
    assert "bgpanet first-token" in wrong(tmp_path, "127.0.0.1")
    first_token(Context(settings(tmp_path)))
    assert wrong(tmp_path, "127.0.0.1") == ""


def test_the_first_token_is_an_admins_and_there_is_no_second_while_it_holds(tmp_path: Path) -> None:
    context = Context(settings(tmp_path))
    make_schema(context.settings.database_url)
    secret = first_token(context)
    principal = tokens.verify(context.database, secret)
    assert principal is not None
    assert principal.is_admin
    with pytest.raises(Conflict, match="bgpanet token create"):
        first_token(context)
    assert audit.verify(context.database).head.number == 1
    (known,) = tokens.list_tokens(context.database)
    tokens.revoke(context.database, known["id"])
    assert first_token(context) != secret


# ── All of it ─────────────────────────────────────────────────────────────────────────────────────────────────────

UNSAFE = {
    "database_url": "postgresql+psycopg://bgpanet@db.invalid/x",
    "redis_url": "redis://queue.invalid/0",
    "artifacts_url": "s3://bucket",
    "s3_endpoint_url": "http://objects.invalid:8333",
}


def test_everything_is_told_at_once_and_nothing_asked_of_the_parts_of_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    unsafe = settings(tmp_path, **UNSAFE)
    with pytest.raises(Insecure) as caught:
        refuse_if_unsafe(unsafe, "10.0.0.1")
    told = str(caught.value)
    for part in ("db.invalid", "queue.invalid", "objects.invalid", "BGPANET_PUBLIC_URL"):
        assert part in told
    refuse_if_unsafe(replace(unsafe, embedded=True), "10.0.0.1")


@pytest.mark.parametrize("part", [["api"], ["scheduler"], ["worker"]])
def test_each_part_refuses_by_itself(tmp_path: Path, part: list[str]) -> None:
    names = {f"BGPANET_{name.upper()}": value for name, value in UNSAFE.items() if "url" in name and "s3" not in name}
    names["BGPANET_ARTIFACTS_URL"] = (tmp_path / "files").as_uri()
    done = subprocess.run(
        [sys.executable, "-m", "services.cli", *part],
        env={**os.environ, "BGPANET_HOME": str(tmp_path), **names},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 1
    assert "db.invalid" in done.stderr
    assert "queue.invalid" in done.stderr


def test_a_database_that_is_away_for_a_moment_is_waited_for(tmp_path: Path) -> None:
    assert wrong(tmp_path, "127.0.0.1", database_url="postgresql+psycopg://x@127.0.0.1:1/x") == ""


def test_first_token_prints_the_secret_alone(tmp_path: Path) -> None:
    made = settings(tmp_path)
    make_schema(made.database_url)
    database = Database(made.database_url)
    with database.write() as session:
        session.execute(insert(Dataset).values(**DATASET))
    environment = {**os.environ, "BGPANET_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "services.cli", "first-token"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert tokens.verify(database, done.stdout.strip()) is not None, done.stderr
    again = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert (again.returncode, again.stdout) == (1, "")
    database.close()
