"""A study: variants on the same folds, tables, tests, and what is missing told."""

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest

from bgpanet.errors import BGPANetError, DeviceMissing, Interrupted, InvalidInput
from bgpanet.evaluation.statistics import corrected_paired_t
from bgpanet.events import ArtifactWritten, Event, Progress
from bgpanet.experiment import Workplace
from bgpanet.specs import StudySpec, parse_spec, read_spec
from bgpanet.study import latex, markdown, study

VARIANTS = [
    {"name": "BGPANet"},
    {"name": "Swin", "set": {"model": "swin_micro"}},
    {"name": "CE", "set": {"loss": "ce", "training": {"weight_decay": 0.0}}},
]


def spec(data: Path | None = None, **changes: Any) -> StudySpec:
    values: dict[str, Any] = {
        "model": {"name": "bgpanet_micro", "placement": "block"},
        "image_size": 32,
        "split": {"folds": 2, "validation_folds": 2},
        "training": {"epochs": 1, "batch_size": 16, "precision": "fp32"},
        "variants": VARIANTS,
        "reference": "Swin",
    }
    if data is not None:
        values["data"] = {"format": "ham10000", "path": str(data)}
    made = parse_spec("study", {**values, **changes})
    assert isinstance(made, StudySpec)
    return made


def place(output: Path, cache: Path, said: list[Event], stop_after: int | None = None) -> Workplace:
    questions = 0

    def stop() -> bool:
        nonlocal questions
        questions += 1
        return stop_after is not None and questions > stop_after

    return Workplace(output, cache, said.append, stop, threads=1)


def test_weights_that_can_not_be_had_stop_a_study_before_its_first_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*args: object, **options: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr("torch.hub.urlopen", offline)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    variants = [*VARIANTS, {"name": "pretrained", "set": {"model": {"name": "swin_t", "weights": "imagenet"}}}]
    with pytest.raises(InvalidInput, match=r"swin_t-704ceda3\.pth"):
        study(spec(tmp_path / "no-images", variants=variants), place(tmp_path / "out", tmp_path / "cache", []))
    # What is over needs no weights any more: only that there are no images stops it then.
    for number in range(len(variants) * 2):
        (tmp_path / "out" / f"cell-{number}").mkdir(parents=True)
        (tmp_path / "out" / f"cell-{number}" / "failed.json").touch()
    with pytest.raises(InvalidInput, match="no-images"):
        study(spec(tmp_path / "no-images", variants=variants), place(tmp_path / "out", tmp_path / "cache", []))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def done(lesions: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], Any]:
    output = tmp_path_factory.mktemp("study")
    said: list[Event] = []
    return output, study(spec(lesions, seeds=[0, 1]), place(output, cache, said)), said


# ── The spec ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_variant_is_trained_with_every_seed_on_every_fold() -> None:
    cells = spec(seeds=[3, 4]).cells()
    assert len(cells) == 3 * 2 * 2
    assert len({(cell.variant, cell.seed, cell.fold) for cell in cells}) == 12
    for cell in cells:
        assert (cell.spec.training.seed, cell.spec.split.fold) == (cell.seed, cell.fold)
        assert cell.spec.split.seed == 0


def test_a_variant_replaces_model_and_loss_and_changes_other_groups_field_by_field() -> None:
    by_name = {cell.variant: cell.spec for cell in spec().cells()}
    assert by_name["BGPANet"].model.placement == "block"
    assert (by_name["Swin"].model.name, by_name["Swin"].model.placement) == ("swin_micro", None)
    assert by_name["CE"].loss.schedule == "ce"
    assert (by_name["CE"].training.weight_decay, by_name["CE"].training.batch_size) == (0.0, 16)


def test_everything_that_is_wrong_with_a_study_is_told_at_once() -> None:
    variants = [
        {"name": "a", "set": {"model": "bgpanet_mico"}},
        {"name": "a"},
        {"name": "b", "set": {"split": {"seed": 1}}},
        {"name": "c", "set": {"training": {"epochs": 0}}},
    ]
    with pytest.raises(InvalidInput) as caught:
        spec(variants=variants, reference="x", seeds=[1, 1])
    for part in (
        "variant 'a' stands twice",
        "reference 'x' is none of the variants: a, a, b, c",
        "a seed stands twice",
        "variant 'a': model: unknown model 'bgpanet_mico'; did you mean 'bgpanet_micro'",
        "variant 'b' may not set split: all see the same images",
        "variant 'c': training.epochs",
    ):
        assert part in str(caught.value)


# ── The study ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_figures_and_tests_are_those_of_the_cells(done: tuple[Path, dict[str, Any], Any], lesions: Path) -> None:
    output, summary, _ = done
    cells = spec(lesions, seeds=[0, 1]).cells()
    scores: dict[str, list[list[float]]] = {name: [[], []] for name in ("BGPANet", "Swin", "CE")}
    sizes = []
    for number, cell in enumerate(cells):
        report = json.loads((output / f"cell-{number}" / "report.json").read_text())
        scores[cell.variant][cell.fold].append(report["figures"]["balanced_accuracy"])
        sizes.append(report["split"]["images"])
    means = {name: [float(np.mean(fold)) for fold in folds] for name, folds in scores.items()}
    for row in summary["variants"]:
        figure = row["figures"]["balanced_accuracy"]
        assert figure["folds"] == pytest.approx(means[row["variant"]])
        assert figure["mean"] == pytest.approx(np.mean(means[row["variant"]]))
        assert figure["sd"] == pytest.approx(np.std(means[row["variant"]], ddof=1))
        assert figure["interval"][0] <= figure["interval"][1]
    tests = {row["system"]: row for row in summary["tests"] if row["figure"] == "balanced_accuracy"}
    assert set(tests) == {"BGPANet", "CE"}
    train = [size["train"] + size["validation"] for size in sizes[:6:3]]
    wanted = corrected_paired_t(means["CE"], means["Swin"], train, [size["test"] for size in sizes[:6:3]])
    assert (tests["CE"]["t"], tests["CE"]["p"]) == pytest.approx(wanted)
    assert summary["leakage"]["groups"] == 0
    assert summary["synthetic"] is True


def test_the_tables_have_a_row_for_every_variant(done: tuple[Path, dict[str, Any], Any]) -> None:
    output, summary, said = done
    text = (output / "table.md").read_text()
    assert [line.split(" | ")[0].strip("| ") for line in text.splitlines()[2:]] == ["BGPANet", "Swin", "CE"]
    figure = summary["variants"][0]["figures"]["balanced_accuracy"]
    assert f"{figure['mean']:.3f} ± {figure['sd']:.3f} ({figure['interval'][0]:.3f}-" in text
    with (output / "table.csv").open() as file:
        assert [row[0] for row in csv.reader(file)] == ["variant", "BGPANet", "Swin", "CE"]
    assert (output / "table.tex").read_text().count(r"\\") == 4
    with (output / "tests.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 2 * 4
    names = [event.name for event in said if isinstance(event, ArtifactWritten)]
    figures = [f"{name}.{kind}" for name in ("variants", "differences") for kind in ("svg", "png")]
    assert names == [*figures, "report.html", "table.md", "table.csv", "table.tex", "tests.csv", "report.json"]
    assert (output / "differences.png").read_bytes().startswith(b"\x89PNG")
    fractions = [event.fraction for event in said if isinstance(event, Progress)]
    assert fractions == sorted(fractions)


def test_a_study_that_was_stopped_goes_on_and_ends_the_same(
    done: tuple[Path, dict[str, Any], Any], lesions: Path, cache: Path, tmp_path: Path
) -> None:
    made = spec(lesions, seeds=[0, 1])
    with pytest.raises(Interrupted):
        study(made, place(tmp_path, cache, [], stop_after=3))
    assert study(made, place(tmp_path, cache, [])) == done[1]


def test_a_missing_cell_is_told_and_its_variant_not_tested(
    done: tuple[Path, dict[str, Any], Any], lesions: Path, cache: Path, tmp_path: Path
) -> None:
    output = shutil.copytree(done[0], tmp_path / "study")
    shutil.rmtree(output / "cell-2")
    (output / "cell-2").mkdir()
    (output / "cell-2" / "failed.json").write_text('{"reason": "out_of_memory", "error": "too large"}')
    summary = study(spec(lesions, seeds=[0, 1]), place(output, cache, []))
    assert summary["missing"] == [{"variant": "CE", "seed": 0, "fold": 0, "why": "out_of_memory: too large"}]
    assert [row["variant"] for row in summary["variants"]] == ["BGPANet", "Swin"]
    assert {row["system"] for row in summary["tests"]} == {"BGPANet"}
    assert "seed 0, fold 0 is missing: out_of_memory: too large" in (output / "table.md").read_text()
    page = (output / "report.html").read_text()
    assert "1 training is missing." in page
    assert "out_of_memory: too large" in page


def test_where_nothing_is_complete_the_study_fails(lesions: Path, cache: Path, tmp_path: Path) -> None:
    for number in range(6):
        (tmp_path / f"cell-{number}").mkdir()
        (tmp_path / f"cell-{number}" / "failed.json").write_text('{"reason": "internal", "error": "x"}')
    with pytest.raises(BGPANetError, match="no variant is complete"):
        study(spec(lesions), place(tmp_path, cache, []))


def test_a_gpu_that_is_gone_ends_a_study_and_is_no_failure_of_its_cells(
    lesions: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-5a1e7c3d")
    said: list[Event] = []
    with pytest.raises(DeviceMissing):
        study(spec(lesions), place(tmp_path / "out", cache, said))
    assert not [event for event in said if "failed" in str(event)]


def test_a_report_of_another_study_is_not_taken_for_a_cell(
    done: tuple[Path, dict[str, Any], Any], lesions: Path, cache: Path, tmp_path: Path
) -> None:
    output = shutil.copytree(done[0], tmp_path / "study")
    with pytest.raises(InvalidInput, match="report of another run"):
        study(spec(lesions, seeds=[0, 1], reference="Swin", loss="focal"), place(output, cache, []))


def test_odd_names_stay_one_cell_of_a_table() -> None:
    rows = [["variant", "p"], ["a|b & 50 % _x_", "< 0.001 ± 1"]]
    assert markdown(rows).splitlines()[2] == r"| a\|b & 50 % _x_ | < 0.001 ± 1 |"
    assert r"a|b \& 50 \% \_x\_ & $<$ 0.001 $\pm$ 1 \\" in latex(rows)


# ── What lies in studies/ ────────────────────────────────────────────────────────────────────────────────────────

STUDIES = Path(__file__).parents[3] / "studies"


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_ready_studies_are_sound(path: Path) -> None:
    made = read_spec("study", path)
    assert isinstance(made, StudySpec)
    assert (made.split.unit, made.split.folds) == ("lesion", 5)
    assert f"-f studies/{path.name} --follow" in path.read_text()


def test_what_the_documentation_says_of_the_articles_claims_is_what_the_script_works_out() -> None:
    done = subprocess.run([sys.executable, str(STUDIES / "claims.py")], capture_output=True, text=True, check=True)
    documented = (STUDIES.parent / "docs" / "fidelity.md").read_text()
    table = documented.split("## The article's numbers")[1]
    rows = re.findall(r"^\| (.+?) \| (.+?) \|$", table, flags=re.MULTILINE)[1:]
    assert [f"{said}: {found}" for said, found in rows] == done.stdout.splitlines()
    assert len(rows) == 14
