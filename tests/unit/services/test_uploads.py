"""Uploads in parts, on SQLite and a folder, through the API; `tests/integration` repeats it on a real S3 server."""

import base64
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select, update

from services import datasets, tokens, uploads, views
from services.context import Context
from services.settings import Settings
from services.tables import Upload
from services.web import create_app
from tests.support.databases import make_schema
from tests.support.registering import ADA, work

PART = 1000
CONTENT = bytes(range(256)) * 12
SHA256 = hashlib.sha256(CONTENT).hexdigest()
WEEK_MS = 7 * 24 * 3600 * 1000


def content_digest(content: bytes) -> str:
    """As in RFC 9530."""
    return f"sha-256=:{base64.b64encode(hashlib.sha256(content).digest()).decode()}:"


class Sender:
    """The API, and people who send files."""

    def __init__(self, client: FlaskClient, context: Context) -> None:
        self.client, self.context = client, context
        made = [("ada", "researcher"), ("bob", "researcher"), ("root", "admin"), ("eve", "viewer")]
        self.tokens = {user: tokens.create(context.database, "t", user, role)[1] for user, role in made}  # type: ignore[arg-type]

    def call(self, method: str, path: str, user: str = "ada", **arguments: Any) -> Any:
        headers = {"Authorization": f"Bearer {self.tokens[user]}", **arguments.pop("headers", {})}
        return self.client.open(f"/api/v1/{path}", method=method, headers=headers, buffered=True, **arguments)

    def begin(self, user: str = "ada", **changes: Any) -> Any:
        body = {"name": "a.zip", "size": len(CONTENT), "sha256": SHA256, **changes}
        return self.call("POST", "uploads", user, json=body)

    def part(
        self, upload_id: str, number: int, content: bytes | None = None, user: str = "ada", digest: str | None = None
    ) -> Any:
        content = CONTENT[(number - 1) * PART : number * PART] if content is None else content
        headers = {"Content-Digest": digest or content_digest(content)}
        return self.call("PUT", f"uploads/{upload_id}/parts/{number}", user, data=content, headers=headers)

    def complete(self, upload_id: str, user: str = "ada") -> Any:
        return self.call("POST", f"uploads/{upload_id}/complete", user)

    def sent(self) -> str:
        """A complete upload of ada's."""
        upload_id: str = self.begin().json["id"]
        for number in (1, 2, 3, 4):
            assert self.part(upload_id, number).status_code == 204
        assert self.complete(upload_id).json["state"] == "complete"
        return upload_id

    def files(self) -> list[Path]:
        folder = self.context.settings.home / "artifacts"
        return [path for path in folder.rglob("*") if path.is_file()]


@pytest.fixture
def sender(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sender]:
    monkeypatch.setattr(uploads, "PART_BYTES", PART)
    settings = Settings.load(
        {
            "BGPANET_HOME": str(tmp_path),
            "BGPANET_REDIS_URL": "redis://127.0.0.1:1/0",
            "BGPANET_UPLOAD_BYTES": "1000000",
        }
    )
    app = create_app(settings)
    context: Context = app.extensions["bgpanet"]
    make_schema(context.database.url)
    yield Sender(app.test_client(), context)
    context.database.close()
    context.celery.close()


def test_an_upload_that_was_cut_off_goes_on_where_it_stopped(sender: Sender) -> None:
    first = sender.begin()
    assert (first.status_code, first.json["parts"], first.json["received"]) == (201, 4, [])
    upload_id = first.json["id"]
    for number in (1, 3):
        sender.part(upload_id, number)
    again = sender.begin()
    assert (again.status_code, again.json["id"], again.json["received"]) == (200, upload_id, [1, 3])
    for number in (2, 4):
        sender.part(upload_id, number)
    for _ in range(2):
        done = sender.complete(upload_id)
        assert (done.status_code, done.json["state"], done.json["received"]) == (200, "complete", [1, 2, 3, 4])
    with sender.context.store.open(f"uploads/{upload_id}") as file:
        assert file.read() == CONTENT
    assert sender.begin().json["state"] == "complete"


def test_an_upload_is_not_complete_before_all_its_parts_are_there(sender: Sender) -> None:
    upload_id = sender.begin().json["id"]
    for number in (1, 4):
        sender.part(upload_id, number)
    answer = sender.complete(upload_id)
    assert answer.status_code == 409
    assert "parts are missing: 2, 3" in answer.json["detail"]


def test_parts_arrive_behind_a_server_that_ends_the_stream_itself(sender: Sender) -> None:
    """As gunicorn does, and Flask's own test client does not."""
    upload_id = sender.begin().json["id"]
    for number in (1, 2, 3, 4):
        content = CONTENT[(number - 1) * PART : number * PART]
        options: dict[str, Any] = {"headers": {"Content-Digest": content_digest(content)}, "data": content}
        environ = {"wsgi.input_terminated": True}
        answer = sender.call("PUT", f"uploads/{upload_id}/parts/{number}", environ_overrides=environ, **options)
        assert answer.status_code == 204
    assert sender.complete(upload_id).json["state"] == "complete"


def test_a_part_that_arrives_damaged_is_refused_and_can_be_sent_again(sender: Sender) -> None:
    upload_id = sender.begin().json["id"]
    answer = sender.part(upload_id, 1, digest=content_digest(b"other"))
    assert (answer.status_code, answer.content_type) == (422, "application/problem+json")
    assert sender.part(upload_id, 1, digest="md5=:x:").status_code == 422
    for content in (b"", CONTENT[: PART - 1], CONTENT[: PART + 1], CONTENT):
        assert sender.part(upload_id, 1, content).status_code in (413, 422)
    assert sender.call("GET", f"uploads/{upload_id}").json["received"] == []
    assert sender.part(upload_id, 1).status_code == 204


def test_a_whole_that_is_not_what_was_announced_is_refused_and_gone(sender: Sender) -> None:
    upload_id = sender.begin().json["id"]
    for number in (1, 2, 3):
        sender.part(upload_id, number)
    sender.part(upload_id, 4, b"x" * (len(CONTENT) - 3 * PART))
    answer = sender.complete(upload_id)
    assert answer.status_code == 422
    assert "digest" in answer.json["detail"]
    assert sender.call("GET", f"uploads/{upload_id}").status_code == 404
    assert sender.files() == []


@pytest.mark.parametrize("number", ["0", "5", "100000", "-1", "x", "1.0"])
def test_an_upload_has_no_other_parts_than_its_own(sender: Sender, number: str) -> None:
    upload_id = sender.begin().json["id"]
    for method in ("GET", "PUT"):
        assert sender.call(method, f"uploads/{upload_id}/parts/{number}", data=b"x").status_code == 404


@pytest.mark.parametrize(
    "changes",
    [
        {"size": 0},
        {"size": 1_000_001},
        {"size": 2**70},
        {"sha256": "x"},
        {"name": "../a.zip"},
        {"name": "a\\b"},
        {"name": ""},
        {"state": "complete"},
        {"key": "jobs/x"},
    ],
)
def test_what_can_not_be_uploaded_is_refused_at_once(sender: Sender, changes: dict[str, Any]) -> None:
    assert sender.begin(**changes).status_code == 422
    assert sender.files() == []


def test_another_users_upload_does_not_exist(sender: Sender) -> None:
    upload_id = sender.begin().json["id"]
    for number in (1, 2, 3, 4):
        assert sender.part(upload_id, number, user="bob").status_code == 404
        sender.part(upload_id, number)
    assert sender.call("GET", f"uploads/{upload_id}", "bob").status_code == 404
    assert sender.call("GET", f"uploads/{upload_id}/parts/1", "bob").status_code == 404
    assert sender.complete(upload_id, "bob").status_code == 404
    assert sender.call("DELETE", f"uploads/{upload_id}", "bob").status_code == 404
    assert sender.complete(upload_id).status_code == 200
    body = {"name": "x", "format": "folder", "source": {"upload": upload_id}}
    answer = sender.call("POST", "datasets", "bob", json=body)
    assert (answer.status_code, answer.json["errors"][0]["field"]) == (422, "source.upload")
    assert sender.begin("bob").json["id"] != upload_id


def test_a_researcher_registers_what_she_sent_and_no_folder(sender: Sender) -> None:
    body = {"name": "x", "format": "folder"}
    upload_id = sender.begin().json["id"]
    answer = sender.call("POST", "datasets", json={**body, "source": {"upload": upload_id}})
    assert answer.status_code == 422
    assert "complete it" in answer.json["errors"][0]["detail"]
    upload_id = sender.sent()
    assert sender.call("POST", "datasets", "eve", json={**body, "source": {"upload": upload_id}}).status_code == 403
    assert sender.call("POST", "datasets", json={**body, "source": {"path": "/x"}}).status_code == 403
    made = sender.call("POST", "datasets", json={**body, "source": {"upload": upload_id}})
    assert (made.status_code, made.json["state"], made.json["created_by"]) == (201, "registering", "ada")
    assert sender.call("DELETE", f"uploads/{upload_id}").status_code == 409


def test_what_is_no_archive_is_refused_by_its_registration(sender: Sender) -> None:
    upload_id = sender.sent()
    body = {"name": "x", "format": "folder", "source": {"upload": upload_id}}
    made = sender.call("POST", "datasets", json=body).json
    work(sender.context)
    refused = sender.call("GET", f"datasets/{made['id']}").json
    assert (refused["state"], refused["findings"][0]["level"]) == ("refused", "refused")
    assert sender.call("DELETE", f"uploads/{upload_id}").status_code == 204
    assert sender.files() == []


def test_nobody_keeps_more_than_a_few_uploads_unfinished(sender: Sender) -> None:
    for number in range(uploads.MOST_OPEN):
        assert sender.begin(sha256=f"{number:064x}").status_code == 201
    assert sender.begin().status_code == 409
    assert sender.begin("bob").status_code == 201


def test_uploads_go_after_a_week_or_once_they_became_a_data_set(sender: Sender) -> None:
    context = sender.context
    old, done = sender.begin(sha256="1" * 64).json["id"], sender.sent()
    sender.part(old, 1)
    assert uploads.sweep(context) == []
    made = sender.call("POST", "datasets", json={"name": "x", "format": "folder", "source": {"upload": done}}).json
    with context.database.write() as session:
        session.execute(update(Upload).values(created_at=Upload.created_at - WEEK_MS - 1))
    assert uploads.sweep(context) == [old]  # the other is being read
    work(context)
    assert uploads.sweep(context) == [done]
    assert sender.files() == []
    with context.database.read() as session:
        assert session.scalars(select(Upload)).all() == []
    assert views.find_dataset(context.database, ADA, made["id"]).state == "refused"
    datasets.remove(context.database, context.store, made["id"], "ada")
