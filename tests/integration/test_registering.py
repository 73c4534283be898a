"""Uploads and sources over real HTTP and a real S3 server, and a worker that is killed while it registers."""

import os
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from werkzeug.serving import make_server

from bgpanet.data import synthetic
from services import datasets, tokens, transfers, uploads, views
from services.client import Client
from services.client_errors import Unreachable
from services.connection import Connection
from services.context import Context
from services.datasets import Registration
from services.settings import Settings
from services.web import create_app
from tests.support.cluster import ADMIN, Cluster, cluster
from tests.support.databases import make_schema
from tests.support.registering import work

PART = 5 * 1024 * 1024  # S3 takes no smaller ones


@dataclass
class Served:
    """An API on loopback, and a token of a researcher's."""

    context: Context
    url: str
    token: str


@pytest.fixture
def s3_settings(s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.secret_key)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    values = {
        "BGPANET_HOME": str(tmp_path / "home"),
        "BGPANET_REDIS_URL": "redis://127.0.0.1:1/0",
        "BGPANET_ARTIFACTS_URL": f"s3://{s3.bucket}/artifacts",
        "BGPANET_S3_ENDPOINT_URL": s3.endpoint_url,
        "BGPANET_SOURCE_BUCKETS": s3.bucket,
    }
    return Settings.load(values)


@pytest.fixture(params=["folder", "s3"])
def served(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setattr(uploads, "PART_BYTES", PART)
    settings = Settings.load({"BGPANET_HOME": str(tmp_path / "home"), "BGPANET_REDIS_URL": "redis://127.0.0.1:1/0"})
    if request.param == "s3":
        settings = request.getfixturevalue("s3_settings")
    app = create_app(settings)
    context: Context = app.extensions["bgpanet"]
    make_schema(context.database.url)
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield Served(
        context, f"http://127.0.0.1:{server.port}", tokens.create(context.database, "t", "ada", "researcher")[1]
    )
    server.shutdown()
    thread.join()
    server.server_close()
    context.database.close()
    context.celery.close()
    if request.param == "s3":
        context.store._client.close()  # type: ignore[attr-defined]


class CutOff:
    """A line that breaks after so many parts; it counts those that are sent."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = self.sent = 0
        self._send = transfers.send_part
        monkeypatch.setattr(transfers, "send_part", self.send)

    def after(self, parts: int) -> None:
        self.left, self.sent = parts, 0

    def send(self, connection: Connection, upload_id: str, number: int, content: bytes) -> None:
        if self.sent == self.left:
            raise Unreachable("the line broke")
        self._send(connection, upload_id, number, content)
        self.sent += 1


def test_an_upload_that_was_cut_off_half_way_goes_on_where_it_stopped(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "large.zip"
    path.write_bytes(os.urandom(3 * PART + 7))
    line = CutOff(monkeypatch)
    line.after(2)
    with Client(served.url, served.token) as client, pytest.raises(Unreachable, match="the line broke"):
        client.upload(path)
    seen: list[tuple[int, int]] = []
    line.after(9)
    with Client(served.url, served.token) as client:
        done = client.upload(path, lambda sent, size: seen.append((sent, size)))
        assert line.sent == 2
        assert client.upload(path)["id"] == done["id"]
        assert line.sent == 2
    assert (done["state"], done["received"], seen[-1]) == ("complete", [1, 2, 3, 4], (3 * PART + 7, 3 * PART + 7))
    served.context.store.get_file(f"uploads/{done['id']}", tmp_path / "copy", done["sha256"])
    assert (tmp_path / "copy").read_bytes() == path.read_bytes()


def test_an_archive_that_was_uploaded_becomes_a_data_set(served: Served, tmp_path: Path) -> None:
    synthetic.draw(tmp_path / "archive" / "HAM", lesions=30)
    path = Path(shutil.make_archive(str(tmp_path / "lesions"), "zip", tmp_path / "archive"))
    with Client(served.url, served.token) as client:
        begun = client.add_dataset("lesions", "ham10000", path, wait=False)
        assert begun["state"] == "registering"
        work(served.context)
        made = client.dataset(begun["id"])
    assert (made["state"], made["created_by"], made["error"]) == ("ready", "ada", None)
    assert made["images"] > 30
    assert len(uploads.sweep(served.context)) == 1
    assert list(served.context.store.keys("uploads/")) == []


def test_a_folder_of_a_bucket_is_registered_and_nothing_beside_it(
    s3: Any, s3_settings: Settings, tmp_path: Path
) -> None:
    context = Context(s3_settings)
    make_schema(context.database.url)
    client = s3.client()
    for number, name in enumerate(["nv/a", "nv/b", "mel/c"]):
        Image.effect_noise((40, 30), 60 + number).convert("RGB").save(tmp_path / "x.png")
        client.upload_file(str(tmp_path / "x.png"), s3.bucket, f"data/skin/{name}.png")
        client.upload_file(str(tmp_path / "x.png"), s3.bucket, f"data/skin-other/{name}x.png")
    asked = Registration(name="skin", format="folder", s3=f"s3://{s3.bucket}/data/skin")
    dataset_id, _ = datasets.register(context, ADMIN, asked)
    work(context)
    made = views.get_dataset(context.database, ADMIN, dataset_id)
    assert (made["state"], made["images"], made["classes"]) == ("ready", 3, ["mel", "nv"]), made["error"]
    client.close()
    context.store._client.close()  # type: ignore[attr-defined]
    context.database.close()
    context.celery.close()


@pytest.fixture
def running(tmp_path: Path, valkey_url: str) -> Iterator[Cluster]:
    settings = Settings.load({"BGPANET_HOME": str(tmp_path / "home"), "BGPANET_REDIS_URL": valkey_url})
    with cluster(replace(settings, lease_seconds=3.0), tmp_path) as made:
        made.scheduler()
        yield made


def test_a_worker_that_is_killed_while_it_registers_costs_nothing_but_time(running: Cluster, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(600):
        Image.effect_noise((64, 48), 20 + number % 90).save(folder / f"i{number}.png")
    context = running.context
    first = running.worker("first")
    asked = Registration(name="many", format="folder", folder=str(folder))
    dataset_id, _ = datasets.register(context, ADMIN, asked)

    def seen() -> dict[str, Any]:
        return views.get_dataset(context.database, ADMIN, dataset_id)

    running.until(lambda: (seen()["progress"] or {}).get("fraction") or None, "it works on it")
    first.kill()
    assert seen()["state"] == "registering"
    running.worker("second")
    running.until(lambda: seen() if seen()["state"] != "registering" else None, "it is registered", 200)
    made = seen()
    assert (made["state"], made["images"], made["version"]) == ("ready", 600, 1), made["error"]
    attempts = views.list_attempts(context.database, ADMIN, made["job"])
    assert [attempt["outcome"] for attempt in attempts] == ["worker_lost", "succeeded"]
    stored = {key.split("/")[2] for key in context.store.keys(f"jobs/{made['job']}/")}
    assert stored == {"2"}  # nothing of the first attempt is left
