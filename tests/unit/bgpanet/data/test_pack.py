import json
import tarfile
from pathlib import Path

import pytest

from bgpanet.data.index import Index
from bgpanet.data.pack import IMAGES, INDEX, pack, read_pack
from bgpanet.data.readers import read
from bgpanet.errors import DataDamaged, InvalidInput


def test_a_packed_data_set_is_the_same_data_set(index: Index, tmp_path: Path) -> None:
    packed = read("packed", pack(index, tmp_path))
    assert (packed.digest, packed.classes, packed.synthetic) == (index.digest, index.classes, True)
    for one, other in zip(packed.records, index.records, strict=True):
        assert one.read_bytes() == other.read_bytes()
        assert (one.image_id, one.label, one.group, one.attributes) == (
            other.image_id, other.label, other.group, other.attributes,
        )  # fmt: skip


def test_a_pack_of_before_licences_were_kept_is_read_and_a_new_one_keeps_them(index: Index, tmp_path: Path) -> None:
    path = pack(index, tmp_path) / INDEX
    assert (read_pack(tmp_path).licence, read_pack(tmp_path).citation) == (index.licence, index.citation)
    assert index.licence
    stored = json.loads(path.read_text())
    del stored["licence"], stored["citation"]
    path.write_text(json.dumps(stored))
    older = read_pack(tmp_path)
    assert (older.licence, older.citation, older.digest) == ("", "", index.digest)


def test_the_images_are_an_ordinary_tar_file(index: Index, tmp_path: Path) -> None:
    with tarfile.open(pack(index, tmp_path) / IMAGES) as tar:
        assert tar.getnames() == [f"images/{record.image_id}" for record in index.records]
        assert tar.extractfile(tar.getnames()[0]).read() == index.records[0].read_bytes()  # type: ignore[union-attr]


def test_the_same_data_gives_the_same_bytes(index: Index, tmp_path: Path) -> None:
    for name in (INDEX, IMAGES):
        contents = {(pack(index, tmp_path / folder) / name).read_bytes() for folder in ("one", "two")}
        assert len(contents) == 1


def test_an_image_that_changed_while_it_was_packed_is_refused(index: Index, tmp_path: Path) -> None:
    file = tmp_path / "image.jpg"
    record = index.records[0]
    file.write_bytes(record.read_bytes())
    moved = Index(index.format, index.classes, (type(record)(**{**vars(record), "path": file}),), "lesion")
    file.write_bytes(b"changed")
    with pytest.raises(DataDamaged, match="has changed"):
        pack(moved, tmp_path / "packed")
    assert not (tmp_path / "packed" / INDEX).exists()


def test_damage_of_the_images_is_seen_when_they_are_read(index: Index, tmp_path: Path) -> None:
    pack(index, tmp_path)
    content = bytearray((tmp_path / IMAGES).read_bytes())
    record = read_pack(tmp_path).records[3]
    content[record.offset + 10] ^= 1
    (tmp_path / IMAGES).write_bytes(content)
    with pytest.raises(DataDamaged, match="has changed"):
        record.read_bytes()


@pytest.mark.parametrize("damage", ["label", "version", "cut", "missing"])
def test_a_damaged_index_is_refused(index: Index, tmp_path: Path, damage: str) -> None:
    path = pack(index, tmp_path) / INDEX
    stored = json.loads(path.read_text())
    if damage == "label":
        stored["records"][0]["label"] = (stored["records"][0]["label"] + 1) % 7
    stored["version"] = 2 if damage == "version" else 1
    path.write_text(json.dumps(stored)[: 500 if damage == "cut" else None])
    if damage == "missing":
        path.unlink()
    with pytest.raises(InvalidInput, match=INDEX):
        read_pack(tmp_path)
