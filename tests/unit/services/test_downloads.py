"""Artifacts over HTTP, from stores that serve files themselves and from those that do not."""

from pathlib import Path

import pytest
from flask import Flask

from services.artifacts import FolderStore, MemoryStore, sha256_of
from services.downloads import artifact_response
from services.tables import Artifact


class ElsewhereStore(MemoryStore):
    """Has its own address for each file, as S3 has."""

    def address(self, key: str, filename: str, expires_seconds: int = 300) -> str | None:
        return f"https://store.example/{key}"


def stored(store: MemoryStore | FolderStore, name: str, media_type: str, folder: Path) -> Artifact:
    path = folder / "file"
    path.write_bytes(b"<b>content</b>")
    sha256 = sha256_of(path)
    store.put_file(f"jobs/{name}", path, sha256, media_type)
    return Artifact(job_id="x", name=name, key=f"jobs/{name}", media_type=media_type, sha256=sha256, size=14)


@pytest.mark.parametrize("kind", ["elsewhere", "folder"])
def test_a_page_comes_from_us_so_that_it_has_no_rights(tmp_path: Path, kind: str) -> None:
    store = ElsewhereStore() if kind == "elsewhere" else FolderStore(tmp_path / "store")
    artifact = stored(store, "report.html", "text/html", tmp_path)
    with Flask(__name__).test_request_context(), artifact_response(store, artifact) as answer:
        answer.direct_passthrough = False
        assert (answer.status_code, answer.get_data()) == (200, b"<b>content</b>")
        assert answer.headers["Content-Security-Policy"].startswith("sandbox; default-src 'none'; ")
        assert answer.headers["Content-Disposition"].startswith("inline")


@pytest.mark.parametrize(("name", "media_type"), [("a.svg", "image/svg+xml"), ("report.json", "application/json")])
def test_anything_else_is_saved_or_comes_from_the_store(tmp_path: Path, name: str, media_type: str) -> None:
    elsewhere, folder = ElsewhereStore(), FolderStore(tmp_path / "store")
    with Flask(__name__).test_request_context():
        answer = artifact_response(elsewhere, stored(elsewhere, name, media_type, tmp_path))
        assert (answer.status_code, answer.location) == (302, f"https://store.example/jobs/{name}")
        with artifact_response(folder, stored(folder, name, media_type, tmp_path)) as saved:
            assert saved.headers["Content-Disposition"].startswith("attachment")
            assert "sandbox" in saved.headers["Content-Security-Policy"]
