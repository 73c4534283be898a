import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from bgpanet.errors import InvalidInput
from services import tokens
from services.database import Database, now_ms
from services.errors import Forbidden, NotFound
from services.last_use import LastUse
from services.tables import Token
from services.tokens import NewToken, Principal
from tests.support.databases import make_schema

ADMIN = Principal("root", "admin")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(f"sqlite:///{tmp_path / 'test.db'}")
    make_schema(made.url)
    yield made
    made.close()


def test_a_token_names_its_owner_until_it_is_revoked(database: Database) -> None:
    token_id, secret = tokens.create(database, "laptop", "ada", "researcher")
    assert tokens.verify(database, secret) == Principal("ada", "researcher", token_id=token_id)
    tokens.revoke(database, token_id)
    assert tokens.verify(database, secret) is None


def test_an_unknown_token_names_nobody(database: Database) -> None:
    assert tokens.verify(database, "bgp_x") is None


def test_no_secret_is_kept(database: Database, tmp_path: Path) -> None:
    _, secret = tokens.create(database, "laptop", "ada", "admin")
    database.close()
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"laptop" in stored
    assert secret.encode() not in stored


def test_revoking_twice_is_told(database: Database) -> None:
    token_id, _ = tokens.create(database, "laptop", "ada", "viewer")
    tokens.revoke(database, token_id)
    with pytest.raises(NotFound):
        tokens.revoke(database, token_id)


def a_token(database: Database, **changes: Any) -> tuple[str, str]:
    return tokens.issue(database, ADMIN, NewToken(**{"name": "t", "user": "ada", **changes}))


def now(database: Database) -> int:
    with database.read() as session:
        return session.scalars(select(now_ms())).one()


def last_use(database: Database, token_id: str) -> int | None:
    with database.read() as session:
        return session.scalars(select(Token.last_used_at).where(Token.id == token_id)).one()


def test_a_token_ends_when_it_expires(database: Database) -> None:
    _, secret = a_token(database, expires_at=now(database) + 60_000)
    assert tokens.verify(database, secret)
    with database.write() as session:
        session.execute(update(Token).values(expires_at=now_ms()))
    assert tokens.verify(database, secret) is None


def test_a_token_reads_whatever_else_it_may(database: Database) -> None:
    principal = tokens.verify(database, a_token(database, scopes=("submit",))[1])
    assert principal is not None
    assert principal.scopes == {"read", "submit"}
    assert principal.may_write
    assert not principal.may_manage


def test_a_token_without_the_scope_submits_nothing(database: Database) -> None:
    principal = tokens.verify(database, a_token(database, scopes=("read",), role="admin")[1])
    assert principal is not None
    assert not principal.may_write


@pytest.mark.parametrize(
    ("asks", "changes"),
    [
        (Principal("bob", "researcher"), {}),
        (Principal("ada", "researcher"), {"role": "admin"}),
        (Principal("ada", "researcher", frozenset({"read", "manage"})), {"scopes": ("submit",)}),
        (Principal("ada", "researcher", expires_at=2**60), {}),
        (Principal("ada", "researcher", expires_at=2**60), {"expires_at": 2**60 + 1}),
    ],
)
def test_nobody_makes_a_token_that_may_more_than_the_one_that_asks(
    database: Database, asks: Principal, changes: dict[str, Any]
) -> None:
    with pytest.raises(Forbidden):
        tokens.issue(database, asks, NewToken(**{"name": "t", "user": "ada", **changes}))
    assert tokens.list_tokens(database) == []


def test_a_token_that_would_have_expired_is_refused(database: Database) -> None:
    with pytest.raises(InvalidInput):
        a_token(database, expires_at=now(database))


def test_nobody_revokes_the_token_of_another(database: Database) -> None:
    token_id, secret = a_token(database)
    with pytest.raises(NotFound):
        tokens.revoke(database, token_id, user="bob")
    assert tokens.verify(database, secret)
    tokens.revoke(database, token_id, user="ada")
    assert tokens.verify(database, secret) is None


def test_last_use_is_written_once_a_minute(database: Database) -> None:
    token_id, _ = a_token(database)
    assert last_use(database, token_id) is None
    before = now(database)
    tokens.touch(database, [token_id], 60_000)
    first = last_use(database, token_id)
    assert first is not None
    assert before <= first <= now(database)
    with database.write() as session:
        session.execute(update(Token).values(last_used_at=first - 59_000))
    tokens.touch(database, [token_id], 60_000)
    assert last_use(database, token_id) == first - 59_000
    with database.write() as session:
        session.execute(update(Token).values(last_used_at=first - 60_000))
    tokens.touch(database, [token_id], 60_000)
    assert (last_use(database, token_id) or 0) >= first


def test_noting_the_last_use_waits_for_nobody(database: Database) -> None:
    token_id, _ = a_token(database)
    seen = LastUse(database)
    with database.write() as session:
        session.connection()  # begins the transaction: on SQLite nobody else can write now
        begun = time.monotonic()
        seen.saw(token_id)
        assert time.monotonic() - begun < 20  # SQLite would wait 30 s for the lock
        assert last_use(database, token_id) is None
    deadline = time.monotonic() + 120
    while last_use(database, token_id) is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert last_use(database, token_id) is not None
