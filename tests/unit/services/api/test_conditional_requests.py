"""What somebody has is not sent again, and files come in parts."""

from pathlib import Path
from typing import Any

import pytest

from services.artifacts import MemoryStore
from tests.unit.services.api.test_api import Api, finished_job
from tests.unit.services.api.test_api import api as api  # a fixture

CONTENT = b"0123456789"


@pytest.fixture
def job_id(api: Api) -> str:
    return finished_job(api, "ada", CONTENT)


@pytest.fixture
def file(job_id: str) -> str:
    return f"jobs/{job_id}/artifacts/report.json"


@pytest.mark.parametrize("part", ["", "/metrics", "/attempts", "/children", "/checkpoints", "/artifacts"])
def test_a_job_that_ended_is_not_sent_twice(api: Api, job_id: str, part: str) -> None:
    first = api.call("GET", f"jobs/{job_id}{part}", "ada")
    assert first.headers["Cache-Control"] == "private, no-cache"
    again = api.call("GET", f"jobs/{job_id}{part}", "ada", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.data, again.headers["ETag"]) == (304, b"", first.headers["ETag"])


def test_a_job_that_goes_on_is_sent_whenever_it_has(api: Api) -> None:
    job_id = api.submit("ada").json["id"]
    tag = api.call("GET", f"jobs/{job_id}", "ada").headers["ETag"]
    assert api.call("GET", f"jobs/{job_id}", "ada", headers={"If-None-Match": tag}).status_code == 304
    api.call("POST", f"jobs/{job_id}/cancel", "ada")
    assert api.call("GET", f"jobs/{job_id}", "ada", headers={"If-None-Match": tag}).status_code == 200


@pytest.mark.parametrize("path", ["datasets/d", "datasets/lesions", "datasets", "models", "models/bgpanet"])
def test_data_sets_and_networks_are_not_sent_twice(api: Api, path: str) -> None:
    tag = api.call("GET", path).headers["ETag"]
    for sent in (tag, f'"other", {tag}', f"W/{tag}", "*"):
        assert api.call("GET", path, headers={"If-None-Match": sent}).status_code == 304
    assert api.call("GET", path, headers={"If-None-Match": '"other"'}).status_code == 200


def test_a_tag_is_of_no_use_to_who_may_not_see(api: Api, job_id: str) -> None:
    tag = api.call("GET", f"jobs/{job_id}", "ada").headers["ETag"]
    for user, status in (("bob", 404), ("root", 304)):
        assert api.call("GET", f"jobs/{job_id}", user, headers={"If-None-Match": tag}).status_code == status


@pytest.mark.parametrize("path", ["jobs", "workers", "me"])
def test_what_changes_at_any_time_is_not_kept(api: Api, path: str) -> None:
    answer = api.call("GET", path)
    assert answer.headers["Cache-Control"] == "no-store"
    assert "ETag" not in answer.headers


@pytest.mark.parametrize(
    "path", ["jobs/ID", "jobs/ID/artifacts", "datasets/d", "models", "jobs/ID/artifacts/report.json"]
)
def test_head_tells_what_get_would_without_its_body(api: Api, job_id: str, path: str) -> None:
    path = path.replace("ID", job_id)
    got, head = (api.call("GET", path, "ada"), None)
    head = api.client.head(f"/api/v1/{path}", headers={"Authorization": f"Bearer {api.tokens['ada']}"}, buffered=True)
    assert (head.status_code, head.data) == (200, b"")
    for name in ("Content-Length", "Content-Type", "ETag", "Cache-Control"):
        assert head.headers[name] == got.headers[name], name


@pytest.mark.parametrize(
    ("asked", "status", "body", "told"),
    [
        ("bytes=0-3", 206, b"0123", "bytes 0-3/10"),
        ("bytes=7-", 206, b"789", "bytes 7-9/10"),
        ("bytes=-2", 206, b"89", "bytes 8-9/10"),
        ("bytes=-99", 206, CONTENT, "bytes 0-9/10"),
        ("bytes=5-99", 206, b"56789", "bytes 5-9/10"),
        ("bytes=10-", 416, None, "bytes */10"),
        ("bytes=99-100", 416, None, "bytes */10"),
        ("bytes=5-2", 200, CONTENT, None),  # what is no range asks for nothing
        ("bytes=a-b", 200, CONTENT, None),
        ("lines=1-2", 200, CONTENT, None),
        ("bytes=-", 200, CONTENT, None),
        ("bytes=0-1,4-5", 200, CONTENT, None),  # several may be answered with the whole
    ],
)
def test_a_file_comes_in_the_part_that_is_asked_for(
    api: Api, file: str, asked: str, status: int, body: bytes | None, told: str | None
) -> None:
    answer = api.call("GET", file, "ada", headers={"Range": asked})
    assert (answer.status_code, answer.headers.get("Content-Range")) == (status, told)
    if body is None:
        assert answer.content_type == "application/problem+json"
    else:
        assert (answer.data, answer.headers["Content-Length"]) == (body, str(len(body)))
        assert answer.headers["Accept-Ranges"] == "bytes"


def test_a_part_comes_only_of_the_file_that_the_rest_is_of(api: Api, file: str) -> None:
    tag = api.call("GET", file, "ada").headers["ETag"]
    same = api.call("GET", file, "ada", headers={"Range": "bytes=4-", "If-Range": tag})
    assert (same.status_code, same.data) == (206, b"456789")
    other = api.call("GET", file, "ada", headers={"Range": "bytes=4-", "If-Range": '"other"'})
    assert (other.status_code, other.data) == (200, CONTENT)
    both = api.call("GET", file, "ada", headers={"Range": "bytes=4-", "If-None-Match": tag})
    assert (both.status_code, both.data) == (304, b"")


class ElsewhereStore(MemoryStore):
    """Has its own address for each file, as S3 has."""

    def address(self, key: str, filename: str, expires_seconds: int = 300) -> str | None:
        return f"https://store.example/{key}"


def test_a_file_that_lies_elsewhere_is_sent_for_only_by_who_has_not_got_it(
    api: Api, file: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tag = api.call("GET", file, "ada").headers["ETag"]
    elsewhere: Any = ElsewhereStore()
    monkeypatch.setitem(vars(api.context), "store", elsewhere)
    assert api.call("GET", file, "ada").status_code == 302
    assert api.call("GET", file, "ada", headers={"If-None-Match": tag}).status_code == 304
    headers = {"Authorization": f"Bearer {api.tokens['ada']}"}
    head = api.client.head(f"/api/v1/{file}", headers=headers)
    assert (head.status_code, head.headers["Content-Length"], head.headers["ETag"]) == (200, "10", tag)


def test_lists_are_searched_by_words_and_filtered(api: Api) -> None:
    for user, name in (("ada", "Tiny net on moles"), ("ada", "tiny on Lesions"), ("bob", "tiny moles, 100%")):
        api.submit(user, name=name)

    def found(query: str, user: str = "root") -> set[str]:
        return {job["name"] for job in api.call("GET", f"jobs?{query}", user).json["items"]}

    assert found("q=tiny+MOLES") == {"Tiny net on moles", "tiny moles, 100%"}
    assert found("q=moles+ti") == {"Tiny net on moles", "tiny moles, 100%"}
    assert found("q=100%25") == {"tiny moles, 100%"}
    assert found("q=t_ny") == set()
    assert found("q=tiny&created_by=ada") == {"Tiny net on moles", "tiny on Lesions"}
    assert found("created_by=bob", "ada") == set()
    assert found("dataset=lesions@1&q=lesions") == {"tiny on Lesions"}
    assert found("dataset=nothing") == set()


def test_data_sets_are_searched_and_filtered(api: Api) -> None:
    def found(query: str) -> list[str]:
        return [dataset["name"] for dataset in api.call("GET", f"datasets?{query}").json["items"]]

    assert found("q=LES") == found("format=ham10000") == found("state=ready") == found("created_by=root") == ["lesions"]
    assert found("q=moles") == found("format=csv") == found("state=refused") == found("created_by=ada") == []
