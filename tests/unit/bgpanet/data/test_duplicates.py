"""Duplicates: what is found on the real images, and what is done with pairs. See test_checks.py for drawn ones."""

from pathlib import Path

import pytest

from bgpanet.data.duplicates import Fingerprints, Pair, join
from bgpanet.data.index import ImageRecord, Index
from bgpanet.errors import InvalidInput


def test_joined_pairs_are_one_group(tmp_path: Path) -> None:
    records = [ImageRecord(name, tmp_path, 0, 0, "", 0, group) for name, group in zip("abcd", "wxyz", strict=True)]
    index = Index("folder", ("k",), tuple(records), "lesion")
    joined = join(index, [Pair("a", "b", 9), Pair("b", "d", 0)])
    assert joined.groups.tolist() == ["w", "w", "y", "w"]
    assert joined.digest != index.digest


def test_damaged_fingerprints_are_refused(tmp_path: Path) -> None:
    Fingerprints.of([]).write(tmp_path / "good.npz")
    assert Fingerprints.read(tmp_path / "good.npz").image_ids == ()
    whole = (tmp_path / "good.npz").read_bytes()
    for content in (b"", b"text", whole[: len(whole) // 2]):
        (tmp_path / "bad.npz").write_bytes(content)
        with pytest.raises(InvalidInput, match="fingerprints"):
            Fingerprints.read(tmp_path / "bad.npz")
