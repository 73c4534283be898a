"""The dashboard through Flask's test client."""

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from sqlalchemy import update
from werkzeug.test import TestResponse

from services.database import Database, now_ms
from services.tables import Job, Worker
from services.tokens import Role
from tests.unit.services.dashboard.browsing import csrf_of
from tests.unit.services.dashboard.full_service import Service, fill, service

LEASE_MS = 30_000
SignIn = Callable[..., FlaskClient]


@pytest.fixture(scope="session")
def full_home(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """The home of a service that was filled once, to be copied, and the ids of its jobs."""
    home = tmp_path_factory.mktemp("full")
    with service(home) as found:
        return home, fill(found)


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Service]:
    with service(tmp_path) as found:
        yield found


@pytest.fixture
def ids(tmp_path: Path, full_home: tuple[Path, dict[str, str]]) -> dict[str, str]:
    """Fills the service of `made`, which has to be asked for after this; the ids of its jobs."""
    home, found = full_home
    assert not (tmp_path / "bgpanet.db").exists(), "ask for `ids` before `made`"
    shutil.copytree(home, tmp_path, dirs_exist_ok=True)
    database = Database(f"sqlite:///{tmp_path / 'bgpanet.db'}")
    with (
        contextlib.closing(database),
        database.write() as session,
    ):  # else lost a minute after the filling
        session.execute(update(Worker).values(seen_at=now_ms()))
        session.execute(update(Job).where(Job.state == "running").values(lease_expires_at=now_ms() + LEASE_MS))
    return found


@pytest.fixture
def sign_in(made: Service) -> SignIn:
    """A function that gives the browser of someone who has signed in."""

    def enter(user: str = "root", role: Role = "admin", secret: str | None = None) -> FlaskClient:
        client = made.app.test_client()
        secret = secret or made.token(user, role)[1]
        answer: TestResponse = client.post("/login", data={"token": secret, "csrf": csrf_of(client.get("/login"))})
        assert answer.status_code == 303, answer.text
        return client

    return enter
