"""DICOM files that the tests write: their pixels, what is kept of them, and what never is."""

import io
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.utils import set_pixel_data
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from bgpanet.data.index import Index
from bgpanet.data.pack import INDEX, pack, read_pack
from bgpanet.data.pixels import open_pixels
from bgpanet.data.readers import read
from bgpanet.errors import InvalidInput

Array = npt.NDArray[Any]
SIDE = 16


def smooth(*shape: int) -> Array:
    """(16, 16, *shape) uint8 without sharp edges, so that JPEG changes little."""
    ramp = np.add.outer(np.arange(SIDE), np.arange(SIDE)) * 4
    return np.broadcast_to(ramp.reshape(SIDE, SIDE, *(1 for _ in shape)), (SIDE, SIDE, *shape)).astype(np.uint8).copy()


def dicom(pixels: Array, kind: str = "RGB", bits: int = 8, patient: str = "", **tags: Any) -> Dataset:
    """A single-frame image of (H, W) or (H, W, 3) pixels."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID, data.SOPInstanceUID = SecondaryCaptureImageStorage, "1.2.3.4"
    data.PatientID = patient
    set_pixel_data(data, pixels, kind, bits)
    for name, value in tags.items():
        setattr(data, name, value)
    return data


def put(path: Path, data: Dataset) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path


def decoded(folder: Path, scratch: Path) -> Array:
    """Pixels of all images after a pack, as the cache has them."""
    index = read("dicom", folder)
    assert [finding.what for finding in index.findings if finding.level == "excluded"] == []
    cached = open_pixels(read_pack(pack(index, scratch / "pack")), SIDE, scratch / "cache")
    assert cached.errors == {}
    return np.asarray(cached.pixels)


def told(index: Index) -> dict[str, tuple[str, str]]:
    return {finding.where: (finding.level, finding.what) for finding in index.findings}


def refusal(folder: Path) -> str:
    with pytest.raises(InvalidInput) as caught:
        read("dicom", folder)
    return str(caught.value)


def grey(values: Array) -> Array:
    return np.repeat(values[..., None], 3, axis=2)


# ── Pixels ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_grey_and_colour_of_any_depth_become_eight_bits(tmp_path: Path) -> None:
    ramp = smooth()
    folder = tmp_path / "data"
    put(folder / "a.dcm", dicom(smooth(3)))
    put(folder / "b.dcm", dicom(ramp, "MONOCHROME2"))
    put(folder / "c.dcm", dicom(ramp, "MONOCHROME1"))
    put(folder / "d.dcm", dicom(ramp.astype(np.uint16) << 4, "MONOCHROME2", bits=12))
    put(folder / "e.dcm", dicom(ramp.astype(np.uint16) * 257, "MONOCHROME2", bits=16))
    pixels = decoded(folder, tmp_path)
    expected = [
        smooth(3),
        grey(ramp),
        grey(255 - ramp),
        grey((ramp.astype(int) * 16 * 255 // 4095).astype(np.uint8)),
        grey(ramp),
    ]
    for found, wanted in zip(pixels, expected, strict=True):
        assert np.array_equal(found, wanted)


def test_planes_palettes_and_ybr_become_rgb(tmp_path: Path) -> None:
    rgb = smooth(3)
    rgb[..., 1] //= 2
    rgb[..., 2] = 255 - rgb[..., 2]
    folder = tmp_path / "data"
    planes = put(folder / "a.dcm", dicom(rgb, PlanarConfiguration=1, PixelData=rgb.transpose(2, 0, 1).tobytes()))
    assert planes.exists()
    ybr = np.asarray(Image.fromarray(rgb).convert("YCbCr"))
    put(folder / "b.dcm", dicom(ybr, "YBR_FULL"))
    palette = dicom(smooth(), "MONOCHROME2", PhotometricInterpretation="PALETTE COLOR")
    for n, colour in enumerate(("Red", "Green", "Blue")):
        setattr(palette, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, 8])
        setattr(palette, f"{colour}PaletteColorLookupTableData", np.roll(np.arange(256), n).astype(np.uint8).tobytes())
    put(folder / "c.dcm", palette)
    pixels = decoded(folder, tmp_path).astype(int)
    assert np.array_equal(pixels[0], rgb)
    assert np.abs(pixels[1] - rgb).max() <= 3
    assert np.array_equal(pixels[2][..., 0], smooth())
    assert np.array_equal(pixels[2][..., 1], (smooth().astype(int) - 1) % 256)


def test_compressed_pixels_are_decoded_as_far_as_pillow_goes(tmp_path: Path) -> None:
    rgb = smooth(3)
    rgb[..., 2] = 255 - rgb[..., 2]
    folder = tmp_path / "data"
    for name, syntax, format, kind in (
        ("a", JPEGBaseline8Bit, "JPEG", "YBR_FULL_422"),
        ("b", JPEG2000Lossless, "JPEG2000", "YBR_RCT"),
        ("d", JPEGBaseline8Bit, "JPEG", "RGB"),
    ):
        file = io.BytesIO()
        Image.fromarray(rgb).save(file, format, **({"keep_rgb": True} if (format, kind) == ("JPEG", "RGB") else {}))
        data = dicom(rgb, PhotometricInterpretation=kind, PixelData=encapsulate([file.getvalue()]))
        data["PixelData"].VR = "OB"
        data.file_meta.TransferSyntaxUID = syntax
        put(folder / f"{name}.dcm", data)
    packed = dicom(rgb)
    packed.compress(RLELossless)
    put(folder / "c.dcm", packed)
    pixels = decoded(folder, tmp_path).astype(int)
    assert np.abs(pixels[0] - rgb).mean() < 6
    assert np.array_equal(pixels[1], rgb)
    assert np.array_equal(pixels[2], rgb)
    assert np.abs(pixels[3] - rgb).mean() < 6


def test_files_that_can_not_be_used_are_excluded_one_by_one(tmp_path: Path) -> None:
    pixels = smooth(3)
    put(tmp_path / "good.dcm", dicom(pixels))
    put(tmp_path / "frames.dcm", dicom(pixels, NumberOfFrames=2, PixelData=pixels.tobytes() * 2))
    put(tmp_path / "short.dcm", dicom(pixels, PixelData=b"12"))
    put(tmp_path / "kind.dcm", dicom(pixels, PhotometricInterpretation="HSV"))
    put(tmp_path / "signed.dcm", dicom(pixels, PixelRepresentation=1))
    put(tmp_path / "giant.dcm", dicom(pixels, Rows=65_500, Columns=65_500))
    foreign = dicom(pixels, PixelData=encapsulate([b"1234"]))
    foreign["PixelData"].VR = "OB"
    foreign.file_meta.TransferSyntaxUID = JPEGLSLossless
    put(tmp_path / "loco.dcm", foreign)
    deflated = dicom(pixels)
    deflated.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    put(tmp_path / "deflated.dcm", deflated)
    no_pixels = dicom(pixels)
    del no_pixels.PixelData
    put(tmp_path / "report.dcm", no_pixels)
    (tmp_path / "text.dcm").write_text("no DICOM")
    (tmp_path / "empty.dcm").touch()
    content = (tmp_path / "good.dcm").read_bytes()
    (tmp_path / "cut.dcm").write_bytes(content[:200])
    (tmp_path / "DICOMDIR").write_bytes(content)
    index = read("dicom", tmp_path)
    assert [record.image_id for record in index.records] == ["good"]
    excluded = {finding.what: finding.where for finding in index.findings if finding.level == "excluded"}
    for what, where in {
        "has several frames; only single ones are read": "frames.dcm",
        "its pixels can't be decoded (ValueError)": "short.dcm",
        "claims more than 64,000,000 pixels": "giant.dcm",
        "its compression can't be decoded here; save it as JPEG, JPEG 2000, RLE or uncompressed": "loco.dcm",
        "is deflated as a whole, which is not unpacked here; save it in another transfer syntax": "deflated.dcm",
        "its pixels can't be decoded (AttributeError)": "report.dcm",
    }.items():
        assert excluded[what] == where
    assert sorted(excluded[what] for what in excluded if "its pixels are none of" in what) == ["kind.dcm, signed.dcm"]
    unreadable = ", ".join(where for what, where in excluded.items() if "is no DICOM file" in what)
    assert {"text.dcm", "empty.dcm", "cut.dcm"} <= set(unreadable.split(", "))


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file made once: each has identifiers of its own, which are not all of one length."""
    return put(tmp_path_factory.mktemp("honest") / "a.dcm", dicom(smooth(3), patient="P1", PatientAge="047Y"))


@settings(max_examples=50)
@given(st.data())
def test_whatever_is_changed_in_a_file_it_is_an_image_or_excluded(
    honest: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.getbasetemp() / "hostile"
    folder.mkdir(exist_ok=True)
    content = bytearray(honest.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(128, 700))] = data.draw(st.integers(0, 255))
    (folder / "a.dcm").write_bytes(content[: data.draw(st.integers(128, len(content)))])
    with suppress(InvalidInput):
        for record in read("dicom", folder).records:
            record.read_bytes()


def test_where_no_file_can_be_used_the_reasons_are_told(tmp_path: Path) -> None:
    assert "has no DICOM files" in refusal(tmp_path)
    put(tmp_path / "frames.dcm", dicom(smooth(3), NumberOfFrames=2))
    assert "frames.dcm: has several frames" in refusal(tmp_path)


# ── Labels and groups ─────────────────────────────────────────────────────────────────────────────────────────────


def test_folders_are_classes_and_images_of_a_patient_one_group_named_for_the_first(tmp_path: Path) -> None:
    put(tmp_path / "nv" / "b.dcm", dicom(smooth(3), patient="P1"))
    put(tmp_path / "nv" / "c", dicom(smooth(), "MONOCHROME2", patient="P2"))
    put(tmp_path / "mel" / "a.DCM", dicom(smooth(3) // 2, patient="P1"))
    put(tmp_path / "mel" / "d.dcm", dicom(smooth(3) // 3, patient="P1", IssuerOfPatientID="elsewhere"))
    index = read("dicom", tmp_path)
    assert (index.classes, index.labels.tolist()) == (("mel", "nv"), [0, 1, 1, 0])
    assert (index.groups.tolist(), index.group_unit) == (["a", "a", "c", "d"], "patient")


def test_without_patients_each_image_is_a_group_and_that_is_told(tmp_path: Path) -> None:
    put(tmp_path / "nv" / "a.dcm", dicom(smooth(3)))
    put(tmp_path / "nv" / "b.dcm", dicom(smooth(3) // 2))
    index = read("dicom", tmp_path)
    assert (index.groups.tolist(), index.group_unit) == (["a", "b"], "image")
    assert told(index)["a, b"] == ("warned", "its patient is not told; the image is a group of its own")


def test_a_table_beside_the_files_labels_them_wherever_they_lie(tmp_path: Path) -> None:
    put(tmp_path / "deep" / "er" / "a.dcm", dicom(smooth(3), patient="P1"))
    put(tmp_path / "b.dcm", dicom(smooth(3) // 2, patient="P2"))
    put(tmp_path / "c.dcm", dicom(smooth(3) // 3, patient="P3"))
    labels = tmp_path / "labels.csv"
    labels.write_text("file,label,remark\ndeep/er/a.dcm,nv,x\nb.dcm,,y\n")
    index = read("dicom", tmp_path)
    assert (index.classes, index.labels.tolist()) == (("nv",), [0, -1])
    assert told(index)["c.dcm"] == ("excluded", "labels.csv does not name it")
    labels.write_text("file,label\ndeep/er/a.dcm,nv\nnone.dcm,nv\n../b.dcm,nv\ndeep/er/a.dcm,nv\n")
    for part in (
        "labels.csv:3 (none.dcm): there is no such file",
        "labels.csv:4: a path must be relative",
        "labels.csv:5 (first labels.csv:2): another image has the same id",
    ):
        assert part in refusal(tmp_path)


def test_images_of_the_same_bytes_join_their_patients(tmp_path: Path) -> None:
    put(tmp_path / "a.dcm", dicom(smooth(3), patient="P1"))
    put(tmp_path / "b.dcm", dicom(smooth(3), patient="P2"))
    assert read("dicom", tmp_path).groups.tolist() == ["a", "a"]


# ── Privacy ───────────────────────────────────────────────────────────────────────────────────────────────────────

PLANTED: dict[str, Any] = {
    "PatientName": "Doe^Jane^Planted",
    "PatientBirthDate": "19700102",
    "PatientAddress": "Planted Lane 1",
    "InstitutionName": "Planted Hospital",
    "ReferringPhysicianName": "Who^Planted",
    "AccessionNumber": "ACC-PLANTED",
    "ImageComments": "Planted comment",
    "StudyDate": "20240102",
    "PatientAge": "047Y",
    "PatientSex": "F",
    "BodyPartExamined": "PLANTEDPART",
}


def test_no_planted_tag_reaches_the_index_the_pack_or_what_is_told(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "data"
    put(folder / "a.dcm", dicom(smooth(3), patient="PLANTED-ID", BurnedInAnnotation="YES", **PLANTED))
    bad = dicom(smooth(3), patient="PLANTED-ID", **PLANTED)
    bad["PixelData"].value = b"12"
    put(folder / "b.dcm", bad)
    content = put(folder / "c.dcm", dicom(smooth(3), patient="PLANTED-ID", **PLANTED)).read_bytes()
    (folder / "c.dcm").write_bytes(content.replace(b"047Y", b"PLAN").replace(b"CS\x02\x00F ", b"CS\x02\x00PL"))
    index = read("dicom", folder)
    assert [record.attributes for record in index.records] == [
        {"age": "45", "sex": "female", "localization": "other"},
        {"sex": "other", "localization": "other"},
    ]
    assert "burned into its pixels" in told(index)["a.dcm"][1]
    packed = pack(index, tmp_path / "pack")
    kept = json.loads((packed / INDEX).read_text())
    out, err = capfd.readouterr()
    everything = [json.dumps(kept), out, err, caplog.text, str(index.findings)]
    everything += [file.read_bytes().decode("latin-1") for file in packed.iterdir()]
    for secret in ("planted", "doe", "jane", "plan", "19700102", "20240102"):
        assert [text for text in everything if secret in text.lower()] == []


@pytest.mark.parametrize(
    ("age", "band"),
    [("003Y", "0"), ("044Y", "40"), ("045Y", "45"), ("095Y", "90"), ("018M", "0"), ("030W", "0"), ("x", "")],
)
def test_ages_are_kept_in_bands_of_five_years(tmp_path: Path, age: str, band: str) -> None:
    data = dicom(smooth(3))
    if age[:-1].isdigit():
        data.PatientAge = age
    put(tmp_path / "a.dcm", data)
    assert read("dicom", tmp_path).records[0].attributes.get("age", "") == band


@pytest.mark.parametrize("file", ["nv/x_DOE_1.dcm", "nv/12345.dcm", "doeling/a.dcm"])
def test_a_patients_name_or_id_in_what_would_be_kept_is_refused_without_repeating_it(tmp_path: Path, file: str) -> None:
    put(tmp_path / file, dicom(smooth(3), patient="12345", PatientName="Doeling^Jane" if "doe" in file else "Doe_1^X"))
    text = refusal(tmp_path)
    assert "the patient's id or name stands in the name of the file or class; rename it" in text
    assert "doe" not in text.lower()
    assert "12345" not in text
