"""Duplicates: what is found on the real images, and what is done with pairs. See test_checks.py for drawn ones."""

import csv
import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bgpanet.data.duplicates import Fingerprints, Pair, features, find_pairs, join
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


def test_images_that_others_resemble_more_in_features_are_found_by_their_spectrum() -> None:
    """Sixteen features of image 0 lie moved in image 1. Thirty others have more of its features, and thirty more of
    those of image 1, in other places: they are nearer by features."""
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 200, (62, 96, 2))
    descriptors = rng.integers(0, 256, (62, 96, 128), np.uint8)
    points[1, :16], descriptors[1, :16] = points[0, :16] * 0.95 + (9, -4), descriptors[0, :16]
    descriptors[2:32, 16:40], descriptors[32:, 16:40] = descriptors[0, 16:40], descriptors[1, 16:40]
    spectra = rng.normal(size=(62, features(Image.new("L", (9, 9)))[2].size))
    spectra[1] = spectra[0] + 0.1 * spectra[1]
    spectra /= np.linalg.norm(spectra, axis=1, keepdims=True)
    prints = Fingerprints.of(
        (f"i{n}", f"{n}", (points[n].astype(np.float16), descriptors[n], spectra[n].astype(np.float16)))
        for n in range(62)
    )
    (pair,) = find_pairs(prints)
    assert (pair.first, pair.second) == ("i0", "i1")
    assert find_pairs(replace(prints, spectra=np.zeros_like(prints.spectra))) == []


def test_fingerprints_without_spectra_can_still_be_compared(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (24, 32), np.uint8)
    image = Image.fromarray(noise).resize((200, 150), Image.Resampling.BICUBIC)
    new = Fingerprints.of([("new", "1", features(image))])
    np.savez(tmp_path / "old.npz", **{k: v for k, v in vars(replace(new, sha256=("2",))).items() if k != "spectra"})
    (pair,) = find_pairs(new, Fingerprints.read(tmp_path / "old.npz"))
    assert (pair.first, pair.second) == ("new", "new")


@pytest.mark.real_data
def test_known_duplicates_of_ham10000_are_found_among_other_images(ham10000: Path) -> None:
    """`studies/duplicates.py` tells the figures on all images."""
    with (ham10000 / "HAM10000_duplicates_across_lesions.csv").open(newline="") as file:
        known = {
            (min(pair), max(pair)) for pair in csv.reader(line.replace(".jpg", "").split(",", 1)[1] for line in file)
        }
    known.remove(("from_img", "to_img"))
    same = {("ISIC_0024366", "ISIC_0029861"), ("ISIC_0024777", "ISIC_0029938")}
    paths = {path.stem: path for path in ham10000.rglob("*.jpg")}
    some = {image_id for pair in known | same for image_id in pair} | set(sorted(paths)[::60])
    prints = Fingerprints.of(
        (image_id, hashlib.sha256(paths[image_id].read_bytes()).hexdigest(), features(Image.open(paths[image_id])))
        for image_id in sorted(some)
    )
    pairs = find_pairs(prints)
    found = {(pair.first, pair.second) for pair in pairs}
    assert {(pair.first, pair.second) for pair in pairs if pair.identical} == same
    assert known <= found
