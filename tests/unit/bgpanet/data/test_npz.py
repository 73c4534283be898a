"""Arrays of images, as MedMNIST has them."""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from bgpanet.data.pack import pack, read_pack
from bgpanet.data.pixels import open_pixels
from bgpanet.data.readers import read
from bgpanet.errors import DataDamaged, InvalidInput

Array = npt.NDArray[Any]


def pixels(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save(folder: Path, **arrays: Array) -> Path:
    np.savez_compressed(folder / "set.npz", **arrays)  # type: ignore[arg-type]
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(InvalidInput) as caught:
        read("npz", folder)
    return str(caught.value)


@pytest.mark.parametrize(("side", "channels"), [(28, ()), (28, (3,)), (64, (3,)), (224, ())])
def test_pixels_come_through_a_pack_and_the_cache_unchanged(
    tmp_path: Path, side: int, channels: tuple[int, ...]
) -> None:
    images = pixels(3, side, side, *channels)
    save(tmp_path, train_images=images, train_labels=np.array([[0], [1], [0]], np.uint8))
    index = read("npz", tmp_path)
    packed = read_pack(pack(index, tmp_path / "pack"))
    assert packed.digest == index.digest
    rgb = images if channels else np.repeat(images[..., None], 3, axis=3)
    for place, source in (("packed", packed), ("read", index)):
        cached = open_pixels(source, side, tmp_path / place)
        assert cached.errors == {}
        assert np.array_equal(cached.pixels, rgb)


def test_parts_are_attributes_labels_are_classes_and_missing_groups_are_told(tmp_path: Path) -> None:
    save(
        tmp_path,
        train_images=pixels(2, 28, 28, 3), train_labels=np.array([[10], [2]], np.uint8),
        val_images=pixels(1, 28, 28, 3, seed=1), val_labels=np.array([2], np.int64),
        test_images=pixels(1, 28, 28, 3, seed=2),
    )  # fmt: skip
    index = read("npz", tmp_path)
    assert [(record.image_id, record.attributes["part"]) for record in index.records] == [
        ("test_000000", "test"), ("train_000000", "train"), ("train_000001", "train"), ("val_000000", "val"),
    ]  # fmt: skip
    assert (index.classes, index.labels.tolist()) == (("2", "10"), [-1, 1, 0, 0])
    assert (index.group_unit, len(set(index.groups))) == ("image", 4)
    assert any("a split may leak" in finding.what for finding in index.findings)


def test_classes_have_the_names_that_the_file_beside_it_gives(tmp_path: Path) -> None:
    save(tmp_path, train_images=pixels(2, 28, 28), train_labels=np.array([0, 2]))
    (tmp_path / "dataset.yaml").write_text("classes: [akiec, bcc, bkl]\nlicence: CC BY-NC 4.0\n")
    index = read("npz", tmp_path)
    assert (index.classes, index.labels.tolist(), index.licence) == (("akiec", "bcc", "bkl"), [0, 2], "CC BY-NC 4.0")
    (tmp_path / "dataset.yaml").write_text("classes: [akiec, bcc]\n")
    assert "set.npz:train[1] ('2'): unknown label; known are akiec, bcc" in refusal(tmp_path)


def test_a_pickle_is_never_loaded(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    save(
        tmp_path,
        train_images=np.array([Bomb()], object),
        val_images=pixels(1, 8, 8),
        val_labels=np.array([Bomb()], object),
    )
    told = refusal(tmp_path)
    assert "train_images: must be (N, H, W) or (N, H, W, 3) uint8, not (1,) object" in told
    assert "val_labels: must be (1,) or (1, 1) integers, one label an image, not (1,) object" in told
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("images", "labels", "told"),
    [
        (np.zeros((2, 8, 8), np.float32), None, "must be (N, H, W) or (N, H, W, 3) uint8, not (2, 8, 8) float32"),
        (pixels(2, 8, 8, 8), None, "not (2, 8, 8, 8) uint8"),
        (pixels(2, 8), None, "not (2, 8) uint8"),
        (pixels(0, 8, 8), None, "must have images of 1 to 4096 pixels a side"),
        (pixels(1, 1, 5000), None, "must have images of 1 to 4096 pixels a side"),
        (np.asfortranarray(pixels(2, 8, 8)), None, "is in Fortran order"),
        (np.zeros((9, 99, 99), np.uint8), None, "unpacks to more than 100 times its size"),
        (pixels(2, 8, 8), np.array([1]), "train_labels: must be (2,) or (2, 1) integers"),
        (pixels(2, 8, 8), np.zeros((2, 14), np.uint8), "train_labels: must be (2,) or (2, 1) integers"),
        (pixels(2, 8, 8), np.array([0.0, 1.0]), "train_labels: must be (2,) or (2, 1) integers"),
        (pixels(2, 8, 8), np.array([0, -1]), "train_labels: must not be negative"),
    ],
)  # fmt: skip
def test_arrays_that_are_no_images_or_labels_are_refused(
    tmp_path: Path, images: Array, labels: Array | None, told: str
) -> None:
    save(tmp_path, train_images=images, **({} if labels is None else {"train_labels": labels}))
    assert told in refusal(tmp_path)


def test_a_header_that_claims_other_sizes_or_versions_is_refused(tmp_path: Path) -> None:
    whole = io.BytesIO()
    np.save(whole, pixels(2, 8, 8))
    for content, told in [
        (whole.getvalue()[:-1], "has not the bytes that its shape needs"),
        (whole.getvalue() + b"x", "has not the bytes that its shape needs"),
        (whole.getvalue().replace(b"\x93NUMPY\x01", b"\x93NUMPY\x09"), "is of version (9, 0)"),
        (b"nothing", "train_images: "),
        (whole.getvalue().replace(b"(2, 8, 8)", b"__import"), "train_images: "),
    ]:
        with zipfile.ZipFile(tmp_path / "set.npz", "w") as archive:
            archive.writestr("train_images.npy", content)
        assert told in refusal(tmp_path)


def test_a_file_that_is_damaged_or_no_archive_is_refused(tmp_path: Path) -> None:
    save(tmp_path, train_images=pixels(4, 28, 28))
    file = tmp_path / "set.npz"
    content = file.read_bytes()
    for damaged in (content[:1500], content[:900] + bytes(64) + content[964:], b"", b"text"):
        file.write_bytes(damaged)
        assert "set.npz: is no .npz, or is damaged" in refusal(tmp_path)
    file.write_bytes(content)
    assert len(read("npz", tmp_path).records) == 4


def test_a_folder_must_have_one_file_with_images(tmp_path: Path) -> None:
    assert "must have exactly one .npz, not 0" in refusal(tmp_path)
    save(tmp_path, images=pixels(1, 8, 8))
    assert "has none of train_images, val_images, test_images" in refusal(tmp_path)
    (tmp_path / "b.npz").touch()
    assert "not 2 (b.npz, set.npz)" in refusal(tmp_path)


def test_an_image_is_checked_whenever_it_is_made(tmp_path: Path) -> None:
    index = read("npz", save(tmp_path, train_images=pixels(2, 8, 8)))
    record = index.records[0]
    other = type(record)(**{**vars(record), "encode": index.records[1].encode})
    with pytest.raises(DataDamaged, match="has changed"):
        other.read_bytes()
