"""Models from elsewhere: everything that is wrong with their files is refused, and nothing of them is ever run."""

import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from bgpanet.bundles import CARD, WEIGHTS, ModelCard, load_bundle, save_bundle
from bgpanet.errors import InvalidInput
from bgpanet.events import ArtifactWritten, Event
from bgpanet.experiment import Workplace
from bgpanet.importing import MOST_ABOUT, MOST_HEADER, header_problems, import_model
from bgpanet.models import build_model
from bgpanet.specs import ImportSpec, ModelSpec

CARD_OF = ModelCard(
    model=ModelSpec(name="swin_micro"),
    classes=("mel", "nv"),
    image_size=32,
    dataset_digest="0" * 64,
    split_digest="1" * 64,
    synthetic=True,
    kept={},
)


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return dict(build_model("swin_micro", num_classes=2, weights=None).state_dict())


@pytest.fixture
def folder(tmp_path: Path, weights: dict[str, torch.Tensor]) -> Path:
    save_bundle(tmp_path / "model", CARD_OF, weights)
    return tmp_path / "model"


def zipped(folder: Path, **more: bytes) -> Path:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(folder).as_posix())
        for name, content in more.items():
            archive.writestr(name, content)
    return path


def run(source: Path, tmp_path: Path) -> tuple[dict[str, object], list[Event]]:
    said: list[Event] = []
    spec = ImportSpec(source=str(source), name="ours.zip")
    return import_model(spec, Workplace(tmp_path / "out", tmp_path / "cache", said.append)), said


def refused(source: Path, tmp_path: Path) -> str:
    with pytest.raises(InvalidInput) as error:
        run(source, tmp_path)
    return str(error.value)


def test_a_sound_model_is_handed_in_and_is_the_same(folder: Path, tmp_path: Path) -> None:
    summary, said = run(zipped(folder, **{"about.json": b'{"metrics": {"figures": {"f1": 0.5}}}'}), tmp_path)
    assert summary["metrics"] == {"figures": {"f1": 0.5}}
    assert summary["places"] == {WEIGHTS: WEIGHTS, CARD: CARD}
    handed = {event.name: Path(event.path) for event in said if isinstance(event, ArtifactWritten)}
    assert handed[WEIGHTS].read_bytes() == (folder / WEIGHTS).read_bytes()
    load_bundle(handed[WEIGHTS].parent)


def test_folds_are_taken_together(folder: Path, tmp_path: Path) -> None:
    whole = tmp_path / "folds"
    for number in range(2):
        (whole / f"fold-{number}").mkdir(parents=True)
        for name in (WEIGHTS, CARD):
            (whole / f"fold-{number}" / name).write_bytes((folder / name).read_bytes())
    summary, _ = run(whole, tmp_path)
    assert summary["members"] == 2
    assert summary["places"] == {f"fold-{n}.{name}": f"fold-{n}/{name}" for n in range(2) for name in (WEIGHTS, CARD)}


class Boom:
    """Would make a file, were it ever loaded."""

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, ("boom", "w")


@pytest.mark.parametrize("name", ["model.pt", "model.pkl", "weights.bin", "fold-0/model.pth", "run.py", "../escape"])
def test_files_that_could_run_code_or_are_not_needed_are_refused_by_name(
    folder: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert f"{name}: is not taken" in refused(zipped(folder, **{name: pickle.dumps(Boom())}), tmp_path)
    assert not (tmp_path / "boom").exists()


def test_a_pickle_that_calls_itself_safetensors_is_refused_unopened(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (folder / WEIGHTS).write_bytes(pickle.dumps(Boom()))
    assert WEIGHTS in refused(folder, tmp_path)
    assert not (tmp_path / "boom").exists()


def header(entries: object, data: int, length: int | None = None) -> bytes:
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + bytes(data)


def tensor(begin: int, end: int, shape: tuple[int, ...] = (2,), dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": [*shape], "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "too short"),
        (header({}, 0, 2**63), "claims a header"),
        (header({}, 0, MOST_HEADER + 1), "claims a header"),
        (header(b"{", 0), "not JSON"),
        (header(b"[]", 0), "no object"),
        (header(b'{"a": 1, "a": 2}', 0), "stands twice"),
        (header(b"[" * 200_000, 0), "not JSON"),
        (header({"a": tensor(0, 8), "b": tensor(4, 12)}, 12), "lies over"),
        (header({"a": tensor(0, 8), "b": tensor(12, 20)}, 20), "gap"),
        (header({"a": tensor(0, 8)}, 4), "needs 8"),
        (header({"a": tensor(0, 8)}, 9), "behind its last tensor"),
        (header({"a": tensor(0, 8, (2**40, 2**40))}, 8), "needs"),
        (header({"a": tensor(-8, 8)}, 8), "no dtype, shape and offsets"),
        (header({"a": tensor(0, 8, dtype="OBJECT")}, 8), "no dtype, shape and offsets"),
        (header({"a": [1]}, 0), "no dtype, shape and offsets"),
    ],
)
def test_what_is_wrong_with_a_header_is_told_before_a_tensor_is_read(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / WEIGHTS
    path.write_bytes(content)
    assert any(told in str(problem) for problem in header_problems(path)), header_problems(path)


def test_headers_that_the_library_writes_are_sound(folder: Path) -> None:
    assert header_problems(folder / WEIGHTS) == []


Change = Callable[[dict[str, torch.Tensor]], None]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda w: w.pop("head.weight"), "lacks head.weight"),
        (lambda w: w.update(extra=torch.zeros(1)), "has extra"),
        (lambda w: w.update({"head.bias": torch.zeros(3)}), "head.bias has the shape (3,), not (2,)"),
        (lambda w: w.update({"head.bias": torch.tensor([float("nan"), 0.0])}), "not finite"),
    ],
)
def test_weights_that_are_not_the_networks_are_refused(
    folder: Path, tmp_path: Path, weights: dict[str, torch.Tensor], change: Change, told: str
) -> None:
    changed = dict(weights)
    change(changed)
    save_file(changed, folder / WEIGHTS)
    assert told in refused(folder, tmp_path)


def test_everything_that_is_missing_or_no_archive_is_told(folder: Path, tmp_path: Path) -> None:
    (folder / CARD).unlink()
    assert f"{CARD}: is missing" in refused(folder, tmp_path)
    (tmp_path / "text.zip").write_bytes(b"hello")
    assert "no zip" in refused(tmp_path / "text.zip", tmp_path)
    (tmp_path / "empty").mkdir()
    assert f"has no {WEIGHTS}" in refused(tmp_path / "empty", tmp_path)
    (folder / CARD).write_text('{"version": 1}')
    assert "classes" in refused(folder, tmp_path)


@pytest.mark.parametrize("text", ['"\\ud800"', '"a\\u0000"', "NaN", "1e999", "[" * 3000, '"' + "x" * MOST_ABOUT + '"'])
def test_what_it_says_of_itself_is_refused_where_nobody_could_keep_or_show_it(
    folder: Path, tmp_path: Path, text: str
) -> None:
    about = f'{{"note": {text}}}'.encode()
    assert "about.json: is not JSON" in refused(zipped(folder, **{"about.json": about}), tmp_path)
