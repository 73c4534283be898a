"""Every store keeps the same promises: a folder, memory, and a real S3 server."""

import hashlib
import io
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from services import artifacts, retention
from services.artifacts import ArtifactStore, folder, memory, open_store, s3
from services.context import Context
from services.errors import ArtifactMissing, Damaged, StorageError
from services.settings import Settings
from tests.support.databases import make_schema


@pytest.fixture(params=["folder", "memory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ArtifactStore]:
    if request.param == "folder":
        yield open_store((tmp_path / "store").as_uri())
    elif request.param == "memory":
        yield open_store("memory://")
    else:
        s3 = request.getfixturevalue("s3")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.access_key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.secret_key)
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        made: Any = open_store(f"s3://{s3.bucket}/some/prefix", s3_endpoint_url=s3.endpoint_url)
        yield made
        made._client.close()


def write(tmp_path: Path, content: bytes) -> tuple[Path, str]:
    path = tmp_path / "source"
    path.write_bytes(content)
    return path, hashlib.sha256(content).hexdigest()


def test_what_was_put_is_got(store: ArtifactStore, tmp_path: Path) -> None:
    path, sha256 = write(tmp_path, b"hello")
    store.put_file("jobs/a/1", path, sha256, "text/plain")
    store.get_file("jobs/a/1", tmp_path / "copy", sha256)
    assert (tmp_path / "copy").read_bytes() == b"hello"
    with store.open("jobs/a/1") as file:
        assert file.read() == b"hello"
    assert store.exists("jobs/a/1")


def test_a_large_file_arrives_whole(store: ArtifactStore, tmp_path: Path) -> None:
    path, sha256 = write(tmp_path, bytes(range(256)) * (20 * 4096))
    store.put_file("large", path, sha256)
    store.get_file("large", tmp_path / "copy", sha256)
    assert (tmp_path / "copy").stat().st_size == path.stat().st_size


def test_a_file_that_is_not_what_it_is_said_to_be_is_not_stored(store: ArtifactStore, tmp_path: Path) -> None:
    path, _ = write(tmp_path, b"hello")
    with pytest.raises(StorageError, match="digest"):
        store.put_file("a", path, "0" * 64)
    assert not store.exists("a")
    assert list(store.keys("")) == []


def test_a_damaged_file_is_not_handed_out(store: ArtifactStore, tmp_path: Path) -> None:
    path, sha256 = write(tmp_path, b"hello")
    store.put_file("a", path, sha256)
    with pytest.raises(StorageError, match="digest"):
        store.get_file("a", tmp_path / "copy", "0" * 64)
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == ["source"]


def test_what_is_not_there_is_missing(store: ArtifactStore, tmp_path: Path) -> None:
    with pytest.raises(ArtifactMissing):
        store.get_file("a", tmp_path / "copy")
    with pytest.raises(ArtifactMissing):
        store.open("a")
    assert not store.exists("a")
    store.delete("a")


def test_putting_again_replaces_and_deleting_removes(store: ArtifactStore, tmp_path: Path) -> None:
    for content in (b"old", b"new"):
        store.put_file("a", *write(tmp_path, content))
    with store.open("a") as file:
        assert file.read() == b"new"
    store.delete("a")
    assert not store.exists("a")


def test_keys_are_listed_by_prefix_in_order(store: ArtifactStore, tmp_path: Path) -> None:
    source = write(tmp_path, b"x")
    for key in ("jobs/b/1", "jobs/a/2", "jobs/a/1", "datasets/c"):
        store.put_file(key, *source)
    assert list(store.keys("jobs/a/")) == ["jobs/a/1", "jobs/a/2"]
    assert list(store.keys("")) == ["datasets/c", "jobs/a/1", "jobs/a/2", "jobs/b/1"]


@pytest.mark.parametrize("key", ["", "/a", "a/", "../a", "a/../b", "a//b", "a\\b", "a b", "a/./b", "ä", "a\n", "."])
def test_a_key_that_is_no_plain_relative_path_is_refused(store: ArtifactStore, tmp_path: Path, key: str) -> None:
    with pytest.raises(ValueError, match="key"):
        store.put_file(key, *write(tmp_path, b"x"))
    with pytest.raises(ValueError, match="key"):
        store.open(key)


def test_an_address_gives_the_bytes_under_a_name_and_to_nobody_with_another_signature(
    store: ArtifactStore, tmp_path: Path
) -> None:
    store.put_file("a/b", *write(tmp_path, b"hello"))
    address = store.address("a/b", "report.json")
    local = store.local_path("a/b")
    if address is None:
        assert local is None or local.read_bytes() == b"hello"
        return
    answer = httpx.get(address)
    assert (answer.status_code, answer.content) == (200, b"hello")
    assert answer.headers["Content-Disposition"] == 'attachment; filename="report.json"'
    assert httpx.get(address, headers={"Range": "bytes=1-2"}).content == b"el"
    forged = address.replace("Signature=", "Signature=0")
    assert httpx.get(forged).status_code == 403
    assert httpx.get(address.partition("?")[0]).status_code == 403


def test_a_copy_that_is_cut_off_leaves_nothing_in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store((tmp_path / "store").as_uri())

    def full(source: Any, target: Any, length: int = 0) -> None:
        target.write(source.read(2))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(StorageError, match="No space left"):
        store.put_file("a", *write(tmp_path, b"hello"))
    assert [path for path in (tmp_path / "store").rglob("*") if path.is_file()] == []


def test_a_server_that_does_not_answer_is_a_storage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    store: Any = open_store("s3://bucket", s3_endpoint_url="http://127.0.0.1:1")
    with pytest.raises(StorageError) as caught:
        store.put_file("a", *write(tmp_path, b"x"))
    assert "very-secret" not in str(caught.value)
    store._client.close()


@pytest.mark.parametrize("url", ["", "http://host/x", "file://host/x", "s3://", "/a/folder"])
def test_an_address_of_no_store_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="artifacts URL"):
        artifacts.open_store(url)


# ── Parts ────────────────────────────────────────────────────────────────────────────────────────────────────────

PARTS = [b"a" * 5 * 1024 * 1024, b"b" * 5 * 1024 * 1024, b"the end"]  # S3 takes no smaller ones but the last
WHOLE = hashlib.sha256(b"".join(PARTS)).hexdigest()


def put_part(store: ArtifactStore, parts_id: str, number: int, content: bytes | None = None) -> None:
    content = PARTS[number - 1] if content is None else content
    sha256 = hashlib.sha256(content).hexdigest()
    store.put_part("up/a", parts_id, number, io.BytesIO(content), len(content), sha256)


def test_parts_in_any_order_become_one_file_once_all_are_there(store: ArtifactStore) -> None:
    parts_id = store.begin_parts("up/a")
    assert store.parts("up/a", parts_id) == {}
    for number in (3, 1):
        put_part(store, parts_id, number)
    assert store.parts("up/a", parts_id) == {1: len(PARTS[0]), 3: len(PARTS[2])}
    assert not store.exists("up/a")
    assert list(store.keys("")) == []
    put_part(store, parts_id, 2)
    for _ in range(2):
        store.finish_parts("up/a", parts_id, WHOLE)
    with store.open("up/a") as file:
        assert hashlib.sha256(file.read()).hexdigest() == WHOLE
    assert list(store.keys("")) == ["up/a"]


@pytest.mark.parametrize("sent", [PARTS[1][:-1], PARTS[1] + b"!", b"x" + PARTS[1][1:]])
def test_a_part_that_is_cut_off_too_long_or_damaged_does_not_replace_a_good_one(
    store: ArtifactStore, sent: bytes
) -> None:
    parts_id = store.begin_parts("up/a")
    for number in (1, 2, 3):
        put_part(store, parts_id, number)
    with pytest.raises(Damaged):
        store.put_part("up/a", parts_id, 2, io.BytesIO(sent), len(PARTS[1]), hashlib.sha256(PARTS[1]).hexdigest())
    store.finish_parts("up/a", parts_id, WHOLE)
    assert store.exists("up/a")


def test_a_part_that_is_sent_again_counts_once(store: ArtifactStore) -> None:
    parts_id = store.begin_parts("up/a")
    for number in (1, 1, 2, 3):
        put_part(store, parts_id, number)
    store.finish_parts("up/a", parts_id, WHOLE)
    assert store.exists("up/a")


def test_parts_that_are_not_the_file_that_was_announced_become_none(store: ArtifactStore) -> None:
    parts_id = store.begin_parts("up/a")
    put_part(store, parts_id, 1)
    with pytest.raises(Damaged, match="digest"):
        store.finish_parts("up/a", parts_id, "0" * 64)
    assert not store.exists("up/a")


def test_parts_that_are_dropped_are_gone(store: ArtifactStore) -> None:
    parts_id = store.begin_parts("up/a")
    put_part(store, parts_id, 1)
    for _ in range(2):
        store.drop_parts("up/a", parts_id)
    with pytest.raises(ArtifactMissing):
        store.parts("up/a", parts_id)
    with pytest.raises(ArtifactMissing):
        store.finish_parts("up/a", parts_id, WHOLE)


def test_an_address_takes_its_part_and_no_other(store: ArtifactStore) -> None:
    parts_id = store.begin_parts("up/a")
    address = store.part_address("up/a", parts_id, 1)
    if address is None:
        return
    assert httpx.put(address, content=PARTS[2]).status_code == 200
    assert store.parts("up/a", parts_id) == {1: len(PARTS[2])}
    assert httpx.put(address.replace("partNumber=1", "partNumber=2"), content=b"x").status_code == 403


# ── What is there, and what died ─────────────────────────────────────────────────────────────────────────────────


def test_files_are_listed_a_page_at_a_time_with_sizes_and_ages_in_the_order_of_keys(
    store: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (folder, memory, s3):
        monkeypatch.setattr(module, "PAGE", 2)
    keys = ["jobs/a/1", "jobs/a/2", "jobs/b/x/1", "jobs/b/x/2", "jobs/c"]
    for number, key in enumerate(keys):
        store.put_file(key, *write(tmp_path, b"x" * number))
    store.put_file("other/a", *write(tmp_path, b"x"))
    pages = list(store.pages("jobs/"))
    assert [[file.key for file in page] for page in pages] == [keys[:2], keys[2:4], keys[4:]]
    assert [file.size for page in pages for file in page] == [0, 1, 2, 3, 4]
    assert all(-5 < file.age_seconds < 120 for page in pages for file in page)
    assert list(store.keys("jobs/a")) == keys[:2]
    assert list(store.pages("nothing/")) in ([], [[]])


def test_parts_that_died_are_dropped_but_neither_young_ones_nor_those_that_are_wanted(store: ArtifactStore) -> None:
    wanted, dead = store.begin_parts("up/a"), store.begin_parts("up/a")
    for parts_id in (wanted, dead):
        put_part(store, parts_id, 3)
    assert list(store.drop_leftovers(3600, {wanted})) == []
    assert list(store.drop_leftovers(-60, {wanted})) == [len(PARTS[2])]
    assert store.parts("up/a", wanted) == {3: len(PARTS[2])}
    with pytest.raises(ArtifactMissing):
        store.parts("up/a", dead)


def test_temporary_files_of_writes_that_died_are_dropped_from_a_folder(tmp_path: Path) -> None:
    store = open_store((tmp_path / "store").as_uri())
    assert list(store.drop_leftovers(0, ())) == []
    store.put_file("jobs/a/1", *write(tmp_path, b"x"))
    dead, alive = (tmp_path / "store" / "jobs" / "a" / f".1.{digit * 16}" for digit in "0f")
    for path in (dead, alive):
        path.write_bytes(b"half")
    for path in (dead, tmp_path / "store" / "jobs" / "a" / "1"):
        os.utime(path, (0, 0))
    assert list(store.drop_leftovers(3600, ())) == [4]
    assert (dead.exists(), alive.exists(), store.exists("jobs/a/1")) == (False, True, True)


def test_a_sweep_deletes_what_nothing_names_from_every_store(
    store: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "YOUNG_SECONDS", -60)
    context = Context(Settings.load({"BGPANET_HOME": str(tmp_path)}))
    context.__dict__["store"] = store
    make_schema(context.database.url)
    lost, others = ["jobs/a/1/x", "jobs/b/2/y"], ["datasets/c", "uploads/d"]
    for key in (*lost, *others):
        store.put_file(key, *write(tmp_path, b"1234"))
    swept = retention.sweep(context)
    assert (swept.orphans, swept.bytes, list(store.keys(""))) == (2, 8, others)
    context.database.close()
