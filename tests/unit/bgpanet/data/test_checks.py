"""The report of a data set: one bad image is one entry, and what people must know is told with its rows."""

import hashlib
import io
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bgpanet.data.checks import Checks, check
from bgpanet.data.cleaning import clean
from bgpanet.data.duplicates import Fingerprints
from bgpanet.data.index import Finding, ImageRecord, Index
from bgpanet.data.pack import pack
from bgpanet.data.pixels import open_pixels
from bgpanet.data.readers import read
from bgpanet.errors import DataDamaged

SECRET = "Ada Lovelace 1815-12-10 48.2082N"


def encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def texture(seed: int, mode: str = "RGB") -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), np.uint8)
    return Image.fromarray(noise).resize((200, 150), Image.Resampling.BICUBIC).convert(mode)


def index_of(folder: Path, files: dict[str, bytes], groups: dict[str, str] | None = None) -> Index:
    """Records by file name; the class is the first letter of the name."""
    folder.mkdir(exist_ok=True)
    classes = tuple(sorted({name[0] for name in files}))
    records = []
    for name, content in files.items():
        (folder / name).write_bytes(content)
        digest = hashlib.sha256(clean(content).content).hexdigest()
        image_id = Path(name).stem
        group = (groups or {}).get(image_id, image_id)
        records.append(
            ImageRecord(image_id, folder / name, 0, len(content), digest, classes.index(name[0]), group, {"age": ""})
        )
    return Index("folder", classes, tuple(records), "lesion")


def told(checks: Checks, image_id: str) -> str:
    found = [f"{f.level}: {f.what}" for f in checks.findings if any(image_id in row.split(" ") for row in f.rows)]
    return "; ".join(found)


def claims_much(content: bytes) -> bytes:
    """A JPEG whose header claims 65,500 x 65,500 pixels."""
    place = content.index(b"\xff\xc0") + 5
    return content[:place] + b"\xff\xdc\xff\xdc" + content[place + 4 :]


def rotated() -> bytes:
    header = Image.Exif()
    header[0x0112] = 6
    return encoded(texture(5), "JPEG", exif=header)


JPEG = encoded(texture(1), "JPEG")
DEEP = Image.fromarray(np.random.default_rng(0).integers(0, 65536, (60, 80), np.uint16))
FAULTS = {
    "cut.jpg": (JPEG[: len(JPEG) // 2], "excluded: the image can't be used: it is cut off"),
    "empty.jpg": (b"", "excluded: the image can't be used: it is empty"),
    "text.jpg": (b"no image", "excluded: the image can't be used: it is no JPEG, PNG, TIFF"),
    "huge.jpg": (claims_much(JPEG), "excluded: the image can't be used: it claims"),
    "progressive.jpg": (encoded(texture(2), "JPEG", progressive=True), ""),
    "cmyk.jpg": (encoded(texture(3, "CMYK"), "JPEG"), "warned: it is CMYK"),
    "grey.jpg": (encoded(texture(4, "L"), "JPEG"), "warned: it is grey"),
    "deep.png": (encoded(DEEP, "PNG"), "it has 16 bits a channel"),
    "turned.jpg": (rotated(), "it lay on its side"),
    "png.jpg": (encoded(texture(6), "PNG"), "the file's name ends in .jpg, but it is PNG"),
    "tiff.jpg": (encoded(texture(7), "TIFF"), "the file's name ends in .jpg, but it is TIFF"),
    "more.jpg": (encoded(texture(8), "JPEG") + b"more", "warned: data after its end is left out"),
    "clear.png": (encoded(texture(9, "RGBA"), "PNG"), "transparent"),
    "flat.png": (encoded(Image.new("RGB", (99, 99), "red"), "PNG"), "nothing but one colour"),
}


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Checks:
    return check(index_of(tmp_path_factory.mktemp("faulty"), {name: content for name, (content, _) in FAULTS.items()}))


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_has_its_own_finding(faulty: Checks, name: str) -> None:
    expected = FAULTS[name][1]
    found = told(faulty, Path(name).stem)
    assert expected in found if expected else found == ""


def test_bad_images_are_entries_and_the_same_ones_that_decoding_finds(faulty: Checks, tmp_path: Path) -> None:
    assert len(faulty.index.records) == len(FAULTS)
    assert faulty.unreadable.keys() == {"cut", "empty", "text", "huge"}
    errors = open_pixels(faulty.index, 8, tmp_path).errors
    assert {faulty.index.records[position].image_id for position in errors} == faulty.unreadable.keys()
    assert not faulty.refused


def test_the_report_is_plain_json_with_counts(faulty: Checks) -> None:
    report = json.loads(json.dumps(faulty.as_json(), allow_nan=False))
    assert report["classes"]["c"] == {"images": 3, "groups": 3}
    assert report["groups"] == {"unit": "lesion", "count": 14, "sizes": {"1": 14}}
    assert report["missing"] == {"label": 0, "age": 14}
    assert (report["images"]["count"], report["images"]["unreadable"]) == (14, 4)
    assert report["images"]["formats"] == {"JPEG": 5, "PNG": 4, "TIFF": 1}
    levels = [finding["level"] for finding in report["findings"]]
    assert levels == sorted(levels)


def test_a_data_set_of_which_nothing_can_be_read_is_refused(tmp_path: Path) -> None:
    assert check(index_of(tmp_path, {"a.jpg": b"x"})).refused


def test_of_many_rows_the_first_are_named_and_all_counted(tmp_path: Path) -> None:
    checks = check(index_of(tmp_path, {f"a{n:02}.jpg": b"x" for n in range(60)}))
    (finding,) = [finding for finding in checks.findings if finding.level == "excluded"]
    assert (len(finding.rows), finding.count) == (50, 60)
    assert finding.where == "a00, a01, a02, a03, a04 and 55 more"


def moved(image: Image.Image) -> Image.Image:
    """The same lesion photographed again: shifted, turned, brighter, saved worse."""
    again = image.rotate(4, Image.Resampling.BICUBIC, translate=(12, -9)).point(lambda value: min(255, value + 12))
    return Image.open(io.BytesIO(encoded(again, "JPEG", quality=60)))


def test_duplicates_are_told_by_what_they_join(tmp_path: Path) -> None:
    images = {f"a{n}": texture(20 + n) for n in range(6)}
    files = {f"{name}.png": encoded(image, "PNG") for name, image in images.items()}
    files |= {"a7.png": encoded(moved(images["a0"]), "PNG"), "b8.png": encoded(moved(images["a1"]), "PNG")}
    files["a9.png"] = files["a2.png"]
    checks = check(index_of(tmp_path, files, {"a7": "a0", "a9": "a9"}))
    found = {name: {(p.first, p.second) for p in pairs} for name, pairs in checks.duplicates.items()}
    assert found == {
        "inside a group": {("a0", "a7")},
        "across groups": {("a1", "b8"), ("a2", "a9")},
        "across classes": {("a1", "b8")},
    }
    assert [pair.identical for pair in checks.duplicates["across groups"]] == [True, False]
    assert any("join their groups" in f.what and f.count == 2 for f in checks.findings)


def test_images_shared_with_another_data_set_are_shouted_out(tmp_path: Path) -> None:
    files = {f"a{n}.png": encoded(texture(30 + n), "PNG") for n in range(5)}
    training = check(index_of(tmp_path / "one", files))
    training.fingerprints.write(tmp_path / "prints.npz")
    others = {"ham 1": Fingerprints.read(tmp_path / "prints.npz")}
    again = {"c1.png": files["a3.png"], "c2.jpg": encoded(moved(texture(34)), "JPEG")}
    test = check(index_of(tmp_path / "two", {**again, "c3.png": encoded(texture(40), "PNG")}), others=others)
    assert {(pair.first, pair.second) for pair in test.shared["ham 1"]} == {("c1", "a3"), ("c2", "a4")}
    (finding,) = [finding for finding in test.findings if "SHARED WITH DATA SET ham 1: 2 images" in finding.what]
    assert finding.rows == ("c1 = a3 of ham 1", "c2 = a4 of ham 1")


def test_progress_is_told_and_may_stop(tmp_path: Path) -> None:
    index = index_of(tmp_path, {f"a{n}.jpg": JPEG for n in range(3)})
    said: list[tuple[int, int]] = []
    check(index, lambda done, total: said.append((done, total)))
    assert said[-1] == (3, 3)

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check(index, stop)


def test_an_image_that_changed_since_it_was_indexed_stops_the_check(tmp_path: Path) -> None:
    index = index_of(tmp_path, {"a.jpg": JPEG})
    (tmp_path / "a.jpg").write_bytes(encoded(texture(2), "JPEG"))
    with pytest.raises(DataDamaged):
        check(index)


def planted(seed: int, format: str) -> bytes:
    header = Image.Exif()
    header[0x010E] = SECRET
    header.get_ifd(0x8825)[1] = SECRET
    options: dict[str, Any] = {"exif": header, "icc_profile": SECRET.encode()}
    if format == "JPEG":
        options |= {"comment": SECRET, "xmp": f"<x:xmpmeta>{SECRET}".encode()}
    return encoded(texture(seed), format, **options) + SECRET.encode()


def test_nothing_planted_reaches_what_is_stored_told_or_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "source" / "nv"
    source.mkdir(parents=True)
    for number, format in enumerate(("JPEG", "PNG", "TIFF")):
        (source / f"{format}.jpg").write_bytes(planted(number, format))
    whole = planted(3, "JPEG")
    (source / "cut.jpg").write_bytes(whole[: -len(whole) // 3])
    (source / "text.jpg").write_bytes(f"DICM (0010,0010) PN {SECRET}".encode())
    (source / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe1\xff\xff" + SECRET.encode())
    caplog.set_level(logging.DEBUG)
    index = read("folder", tmp_path / "source")
    checks = check(index)
    folder = pack(checks.index, tmp_path / "packed")
    checks.fingerprints.write(folder / "fingerprints.npz")
    (folder / "report.json").write_text(json.dumps(checks.as_json()))
    for path in folder.iterdir():
        assert b"Lovelace" not in path.read_bytes(), path.name
    assert "Lovelace" not in caplog.text + "".join(capfd.readouterr())
    assert checks.unreadable.keys() == {"cut", "text", "broken"}
    packed = read("packed", folder)
    assert (packed.digest, packed.findings) == (index.digest, checks.findings)
    again = check(packed)
    assert again.unreadable.keys() == checks.unreadable.keys()


def test_what_readers_found_stays_in_the_report(tmp_path: Path) -> None:
    index = index_of(tmp_path, {"a.jpg": JPEG})
    known = Finding("warned", "row 7", "known")
    checks = check(Index(index.format, index.classes, index.records, "lesion", (known,)))
    assert known in checks.findings
