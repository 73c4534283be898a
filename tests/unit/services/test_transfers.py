"""Files over a line that breaks: what is there stays, what is damaged goes, and nothing half stands in its place."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from services import transfers
from services.client import Client
from services.client_errors import ArrivedDamaged, Missing, Unreachable
from tests.support.listening import Line, listening
from tests.unit.services.api.test_api import Api, finished_job
from tests.unit.services.api.test_api import api as api  # a fixture

CONTENT = os.urandom(300_000)
Body = Iterator[bytes]


@pytest.fixture
def line(api: Api, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Client, Line]]:
    monkeypatch.setattr(transfers, "FIRST_DELAY", 0.001)
    with listening(api.client.application) as (url, line), Client(url, api.tokens["ada"]) as client:
        yield client, line


def artifact(api: Api, client: Client) -> tuple[str, str]:
    """A job's id and the name of its one artifact, which is `CONTENT`."""
    job_id = finished_job(api, "ada", CONTENT)
    (found,) = client.job(job_id).artifacts()
    return job_id, found["name"]


def parts(folder: Path) -> list[Path]:
    return list(folder.glob(".*.part"))


def breaking(line: Line, after: int, times: int) -> None:
    """The next downloads break after so many bytes."""
    left = iter(range(times))

    def cut(path: str, body: Body) -> Body:
        if "/artifacts/" not in path or next(left, None) is None:
            return body
        return broken(b"".join(body), after)

    line.cut = cut


def broken(content: bytes, after: int) -> Body:
    yield content[:after]
    raise ConnectionResetError("the line breaks")


def test_a_download_that_breaks_goes_on_where_it_was(api: Api, line: tuple[Client, Line], tmp_path: Path) -> None:
    client, wire = line
    job_id, name = artifact(api, client)
    breaking(wire, after=70_000, times=3)
    seen: list[tuple[int, int]] = []
    path = client.download(job_id, name, tmp_path, lambda there, size: seen.append((there, size)))
    assert (path, path.read_bytes() == CONTENT) == (tmp_path / name, True)
    assert [there for there, _ in seen] == sorted(there for there, _ in seen), "nothing was fetched twice"
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert len([path for _, path in wire.asked if path.endswith(f"/artifacts/{name}")]) == 4
    assert parts(tmp_path) == []


def test_what_came_before_the_client_gave_up_is_not_fetched_again(
    api: Api, line: tuple[Client, Line], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, wire = line
    job_id, name = artifact(api, client)
    monkeypatch.setattr(transfers, "TRIES", 1)

    def cut(path: str, body: Body) -> Body:
        if "/artifacts/" not in path:
            return body
        return broken(b"".join(body), 0 if parts(tmp_path) else 90_000)

    wire.cut = cut
    with pytest.raises(Unreachable):
        client.download(job_id, name, tmp_path)
    (partial,) = parts(tmp_path)
    assert partial.read_bytes() == CONTENT[:90_000]
    assert not (tmp_path / name).exists()
    wire.cut = lambda path, body: body
    seen: list[int] = []
    client.download(job_id, name, tmp_path, lambda there, _: seen.append(there))
    assert min(seen) > 90_000
    assert (tmp_path / name).read_bytes() == CONTENT


def test_a_part_that_is_none_of_the_file_is_thrown_away(api: Api, line: tuple[Client, Line], tmp_path: Path) -> None:
    client, _ = line
    job_id, name = artifact(api, client)
    sha256 = client.job(job_id).artifacts()[0]["sha256"]
    for junk in (b"x" * 1000, b"x" * len(CONTENT), b"x" * (len(CONTENT) + 5)):
        (tmp_path / f".{name}.{sha256[:12]}.part").write_bytes(junk)
        assert client.download(job_id, name, tmp_path).read_bytes() == CONTENT
        (tmp_path / name).unlink()


def test_bytes_that_are_others_than_announced_stand_nowhere(
    api: Api, line: tuple[Client, Line], tmp_path: Path
) -> None:
    client, wire = line
    job_id, name = artifact(api, client)
    flipped = bytes([CONTENT[0] ^ 1]) + CONTENT[1:]
    wire.cut = lambda path, body: iter([flipped]) if "/artifacts/" in path and list(body) else body
    (tmp_path / name).write_bytes(b"the one before")
    with pytest.raises(ArrivedDamaged, match="try again"):
        client.download(job_id, name, tmp_path)
    assert (tmp_path / name).read_bytes() == b"the one before"
    assert parts(tmp_path) == []


def test_an_empty_file_is_a_file(api: Api, line: tuple[Client, Line], tmp_path: Path) -> None:
    client, _ = line
    job_id = finished_job(api, "ada", b"")
    name = client.job(job_id).artifacts()[0]["name"]
    assert client.download(job_id, name, tmp_path / "x").read_bytes() == b""


def test_what_is_not_there_is_told_with_what_is(api: Api, line: tuple[Client, Line], tmp_path: Path) -> None:
    client, _ = line
    job_id, name = artifact(api, client)
    with pytest.raises(Missing, match=f"no artifact 'nothing'; it has: {name}"):
        client.download(job_id, "nothing", tmp_path)
    with pytest.raises(NotADirectoryError, match="make it first"):
        client.download(job_id, name, tmp_path / "no" / "folder")


def test_an_upload_over_a_busy_line_arrives_once(api: Api, line: tuple[Client, Line], tmp_path: Path) -> None:
    client, wire = line
    path = tmp_path / "a.zip"
    path.write_bytes(CONTENT)
    wire.refuse("502 BAD GATEWAY")
    done = client.upload(path)
    wire.refuse("503 BUSY")
    assert client.upload(path)["id"] == done["id"]
    assert (done["state"], done["size"]) == ("complete", len(CONTENT))
    assert len([where for method, where in wire.asked if method == "PUT"]) == 1
