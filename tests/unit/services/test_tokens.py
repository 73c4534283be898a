from collections.abc import Iterator
from pathlib import Path

import pytest

from services import tokens
from services.database import Database
from services.errors import NotFound
from services.tables import Base
from services.tokens import Principal


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(f"sqlite:///{tmp_path / 'test.db'}")
    Base.metadata.create_all(made.engine)
    yield made
    made.close()


def test_a_token_names_its_owner_until_it_is_revoked(database: Database) -> None:
    token_id, secret = tokens.create(database, "laptop", "ada", "researcher")
    assert tokens.verify(database, secret) == Principal("ada", "researcher")
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
