"""Archives: what is good is unpacked, what is not is refused whole, and nothing outside the folder changes."""

import gzip
import io
import os
import stat
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bgpanet.data.archives import Limits, extract
from bgpanet.errors import InvalidInput

KINDS = ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"]
Files = Sequence[tuple[str, bytes]]


def archive(kind: str, files: Files) -> bytes:
    made = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as packed:
            for name, content in files:
                info = zipfile.ZipInfo("x")
                info.filename, info.compress_type = name, zipfile.ZIP_DEFLATED
                packed.NameToInfo.clear()  # it would warn of doubled names
                packed.writestr(info, content)
    else:
        mode = "w:" + kind[4:]
        with tarfile.open(fileobj=made, mode=mode) as packed_tar:  # type: ignore[call-overload]
            for name, content in files:
                member = tarfile.TarInfo(name)
                member.size = len(content)
                packed_tar.addfile(member, io.BytesIO(content))
    return made.getvalue()


def refusal(content: bytes, folder: Path, limits: Limits | None = None) -> str:
    with pytest.raises(InvalidInput) as caught:
        extract(io.BytesIO(content), folder / "into", limits)
    assert list(folder.iterdir()) == []
    return str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_files_come_out_as_they_went_in(tmp_path: Path, kind: str) -> None:
    files = [("table.csv", b"a,b\n"), ("./images/1.jpg", os.urandom(3_000_000)), ("images/deep/é.jpg", b"")]
    said: list[tuple[int, int]] = []
    path = tmp_path / "archive"
    path.write_bytes(archive(kind, files))
    found = extract(path, tmp_path / "into", progress=lambda done, total: said.append((done, total)))
    assert (found.files, found.bytes, found.findings) == (3, 3_000_004, ())
    for name, content in files:
        assert (tmp_path / "into" / name).read_bytes() == content
    assert said == sorted(said)
    assert said[-1] == (2 * path.stat().st_size, 2 * path.stat().st_size)


BAD_NAMES = {
    "../x": "leads out",
    "a/../../x": "leads out",
    "a/..": "leads out",
    "/etc/x": "absolute",
    "C:/x": "absolute",
    "a\\..\\x": "backslash",
    "%2e%2e/x": "leads out",
    "%252e%252e%252fx": "leads out",
    "a%5cx": "backslash",
    "%2fetc/x": "absolute",
    "\uff0e\uff0e/x": "leads out",
    "a\nb": "printed",
    "a%00b": "printed",
    "x" * 256: "too long",
    "y/" * 600: "too long",
}


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_is_not_plain_is_refused(tmp_path: Path, kind: str, name: str) -> None:
    assert BAD_NAMES[name] in refusal(archive(kind, [("good", b"x"), (name, b"x")]), tmp_path)


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["A.jpg", "a.jpg"], "by case or coding"),
        (["d/x", "D/y"], "by case or coding"),
        (["\u00e9", "e\u0301"], "by case or coding"),
        (["a", "a/b"], "both a file and a folder"),
        (["a", "a"], "twice"),
    ],
)
def test_names_that_can_not_lie_side_by_side_are_refused(
    tmp_path: Path, kind: str, names: list[str], told: str
) -> None:
    assert told in refusal(archive(kind, [(name, b"x") for name in names]), tmp_path)


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    text = refusal(archive("zip", [("../a", b""), ("/b", b""), ("c\\d", b""), ("e", b""), ("E", b"")]), tmp_path)
    for part in ("../a: the name leads out", "/b: the name is absolute", "the name has a backslash", "E: another name"):
        assert part in text


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar_are_refused(tmp_path: Path, kind: bytes) -> None:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as packed:
        member = tarfile.TarInfo("link")
        member.type, member.linkname = kind, "/etc/passwd"
        packed.addfile(member)
    assert "links and devices" in refusal(made.getvalue(), tmp_path)


def test_links_in_a_zip_are_refused(tmp_path: Path) -> None:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as packed:
        info = zipfile.ZipInfo("link")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        packed.writestr(info, "/etc/passwd")
    assert "links and devices" in refusal(made.getvalue(), tmp_path)


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar.bz2", "tar.xz"])
def test_a_bomb_is_refused(tmp_path: Path, kind: str) -> None:
    assert "unpacks to more than" in refusal(archive(kind, [("zeros", bytes(12_000_000))]), tmp_path)


def test_a_bomb_among_other_files_is_refused(tmp_path: Path) -> None:
    made = archive("zip", [("noise", os.urandom(300_000)), ("zeros", bytes(12_000_000))])
    assert "zeros: unpacks to more than 100 times its size" in refusal(made, tmp_path)


def test_a_tar_in_which_a_bomb_hides_behind_a_small_entry_is_refused(tmp_path: Path) -> None:
    bomb = gzip.compress(archive("tar", [("x", b"x")]) + bytes(20_000_000))
    assert "unpacks to more than" in refusal(bomb, tmp_path)


def test_an_archive_inside_an_archive_is_told_and_not_unpacked(tmp_path: Path) -> None:
    inner = archive("zip", [("../x", b"x")])
    found = extract(io.BytesIO(archive("zip", [("inner.zip", inner), ("a.jpg", b"")])), tmp_path / "into")
    assert [(f.level, f.where) for f in found.findings] == [("warned", "inner.zip")]
    assert (tmp_path / "into" / "inner.zip").read_bytes() == inner


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize(
    ("limits", "told"),
    [(Limits(entries=9), "holds more than 9 files"), (Limits(total_bytes=9), "unpacks to more than 9 bytes")],
)
def test_limits_are_kept(tmp_path: Path, kind: str, limits: Limits, told: str) -> None:
    assert told in refusal(archive(kind, [(str(n), b"x") for n in range(10)]), tmp_path, limits)


def test_a_directory_of_a_million_entries_is_not_even_read(tmp_path: Path) -> None:
    made = bytearray(archive("zip", [("a", b"x")]))
    made[-10:-6] = (1_000_000 * 60).to_bytes(4, "little")
    assert "holds more than 100,000 files" in refusal(bytes(made), tmp_path, Limits(entries=100_000))


@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_that_is_cut_off_or_changed_leaves_nothing(tmp_path: Path, kind: str) -> None:
    whole = archive(kind, [("a.jpg", os.urandom(50_000)), ("b.jpg", os.urandom(50_000))])
    assert "damaged" in refusal(whole[: len(whole) // 2], tmp_path)
    if kind != "tar":  # an uncompressed tar has no checksum of contents
        changed = bytearray(whole)
        changed[len(whole) // 2] ^= 0xFF
        assert "damaged" in refusal(bytes(changed), tmp_path)


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04", b"\x1f\x8b", os.urandom(5000), bytes(5000)])
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    assert "archive" in refusal(content, tmp_path)


def test_a_header_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"x": "y" * (2 << 20)}) as packed:
        packed.addfile(tarfile.TarInfo("a"))
    assert "header of" in refusal(made.getvalue(), tmp_path)


def test_a_full_disk_leaves_nothing_and_is_no_fault_of_the_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 0}))
    with pytest.raises(OSError, match="more than are free"):
        extract(io.BytesIO(archive("zip", [("a", b"x")])), tmp_path / "into")
    assert list(tmp_path.iterdir()) == []


def test_what_stops_it_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(io.BytesIO(archive("tar", [("a", os.urandom(9_000_000))])), tmp_path, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_something_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    with pytest.raises(InvalidInput, match="must be empty"):
        extract(io.BytesIO(archive("zip", [("mine", b"y")])), tmp_path)
    assert (tmp_path / "mine").read_text() == "x"


PIECES = st.sampled_from(["..", ".", "", "a", "A", "b", "%2e%2e", "%252e%252e", "\\", "C:", "é", "\u0001", "mine"])
NAMES = st.lists(st.lists(PIECES, min_size=1, max_size=4).map("/".join), min_size=1, max_size=5)


@settings(max_examples=60)
@given(names=NAMES, kind=st.sampled_from(["zip", "tar"]))
def test_whatever_the_names_nothing_outside_the_folder_changes(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], kind: str
) -> None:
    root = tmp_path_factory.mktemp("any")
    (root / "mine").write_text("x")
    try:
        extract(io.BytesIO(archive(kind, [(name, b"y") for name in names])), root / "in" / "to")
        unpacked = [path for path in (root / "in" / "to").rglob("*") if path.is_file()]
        assert len(unpacked) == sum(not name.endswith("/") for name in names)
    except InvalidInput:
        assert not (root / "in" / "to").exists()
    assert (root / "mine").read_text() == "x"
    assert {path.name for path in root.iterdir()} <= {"mine", "in"}
    assert {path.name for path in root.glob("in/*")} <= {"to"}
