"""Pages of every kind: complete, safe, and whole where something is missing."""

import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest

from bgpanet.report import figures
from bgpanet.report.gallery import worst
from bgpanet.report.pages import Material, model_card, run_page, study_page
from bgpanet.study import table_rows
from tests.unit.bgpanet.report.conftest import CLASSES, material, pictures, table
from tests.unit.bgpanet.report.test_report_figures import summary

DASH = "\N{EN DASH}"
EVIL = [
    "<script>alert(1)</script>",
    '"><img src=https://evil.example/x onerror=alert(2)>',
    "a|b `*_[c](javascript:d)_*` $e",
]


class Reader(HTMLParser):
    """Elements, attributes and words of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.ids: Counter[str] = Counter()
        self._words: list[str] = []
        self._hidden = 0
        self.feed(html)
        self.words = re.sub(r"\s+", " ", "".join(self._words))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self.ids.update(value or "" for name, value in attrs if name == "id")
        self._hidden += tag == "style"
        if tag in ("td", "th", "p", "dt", "dd", "br", "li", "text"):
            self._words.append(" ")

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag == "style"

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self._words.append(data)


def words(html: str) -> str:
    return Reader(html).words


def study_report(**changes: Any) -> dict[str, Any]:
    found = summary()
    for row in found["variants"]:
        row |= {"kept_epochs": [3, 2], "loss_weight_focal": [0.75, None]}
    for row in found["tests"]:
        row |= {"mean": 0.62, "reference_mean": 0.57, "t": 2.31, "p": 0.041, "p_holm": 0.123}
    spec = {
        "model": {"name": "swin_micro"}, "split": {"unit": "lesion", "folds": 2, "seed": 0}, "reference": "Swin",
        "variants": [{"name": "Swin", "set": {}}, {"name": "BGPANet", "set": {"model": "bgpanet_micro"}}],
    }  # fmt: skip
    values = {
        "kind": "study", "folds": 2, "seeds": [0, 1], "classes": CLASSES, "missing": [], "synthetic": False,
        "leakage": {"groups": 0, "images": 0, "share": 0.0}, "spec": spec, "environment": {"bgpanet": "0.1.0"},
    }  # fmt: skip
    return {**found, **values, **changes}


@pytest.fixture(scope="module")
def pages(training: Material, crossed: Material) -> dict[str, str]:
    study = study_report()
    return {
        "training": run_page(training).html,
        "cross-validation": run_page(crossed).html,
        "study": study_page(study, table_rows(study)).html,
    }


# ── Every page ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_page_runs_nothing_and_asks_no_other_host(pages: dict[str, str]) -> None:
    for name, html in pages.items():
        page = Reader(html)
        assert not page.tags.keys() & {"script", "link", "iframe", "object", "embed", "base", "form"}, name
        for tag, attribute, value in page.attributes:
            assert not attribute.startswith("on"), (name, tag, attribute)
            if attribute in ("src", "href", "xlink:href", "srcset", "data", "action"):
                assert value.startswith(("data:image/jpeg;base64,", "#")), (name, tag, value)
        assert set(re.findall(r"url\((.)", html)) <= {"#"}
        assert "@import" not in html
        assert set(re.findall(r'\b(\S+)="https?://', html)) <= {"xmlns", "xmlns:xlink"}


def test_a_page_holds_no_id_twice_and_no_link_into_nothing(pages: dict[str, str]) -> None:
    for name, html in pages.items():
        page = Reader(html)
        assert [key for key, count in page.ids.items() if count > 1] == [], name
        targets = {value[1:] for _, attribute, value in page.attributes if attribute.endswith("href")}
        labels = {value for _, attribute, value in page.attributes if attribute == "aria-labelledby"}
        assert (targets | labels) - set(page.ids) == set(), name


def test_tables_have_heads_and_pictures_have_words(pages: dict[str, str]) -> None:
    for html in pages.values():
        page = Reader(html)
        assert page.tags["table"] == page.tags["thead"] > 2
        assert all(value for tag, attribute, value in page.attributes if tag == "img" and attribute == "alt")
        assert sum(tag == "img" and attribute == "alt" for tag, attribute, _ in page.attributes) == page.tags["img"]
        assert page.tags["h1"] == 1


def test_names_from_users_stay_text() -> None:
    made = material(EVIL)
    changed = [replace(p, image_id=f"{EVIL[0]}{n}", group=EVIL[1]) for n, p in enumerate(made.pictures)]
    report = {**made.report, "findings": [{"level": "warned", "where": EVIL[0], "what": EVIL[1]}]}
    page = run_page(replace(made, report=report, pictures=changed))
    assert page.problems == ()
    read = Reader(page.html)
    assert not read.tags.keys() & {"script", "iframe"}
    assert not any(attribute.startswith("on") for _, attribute, _ in read.attributes)
    assert all(
        value.startswith("data:") for tag, attribute, value in read.attributes if (tag, attribute) == ("img", "src")
    )
    for name in EVIL:
        assert name in read.words
    study = study_report(missing=[{"variant": "b", "seed": 0, "fold": 1, "why": EVIL[0]}])
    assert "<script" not in study_page(study, table_rows(study)).html


def test_a_class_that_breaks_out_of_nothing_breaks_no_model_card() -> None:
    card = model_card(material(EVIL))
    assert "<" not in card
    assert not re.search(r"(?<!\\)\]\(", card)
    rows = [line for line in card.splitlines() if line.startswith("| ")]
    for line in rows:
        assert len(re.findall(r"(?<!\\)\|", line)) in (3, 4, 5, 6), line
    assert r"a\|b \`\*\_\[c\]" in card


# ── A training ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_training_is_told_in_full(training: Material, pages: dict[str, str]) -> None:
    report, found = training.report, words(pages["training"])
    whole, ends = report["figures"], report["intervals"]["balanced_accuracy"]
    constant = whole["constant_predictor"]
    value = f"{whole['balanced_accuracy']:.3f} {ends[0]:.3f}{DASH}{ends[1]:.3f}"
    assert f"Balanced accuracy {value} {constant['balanced_accuracy']:.3f}" in found
    assert f"Accuracy {whole['accuracy']:.3f}" in found
    for row in whole["per_class"]:
        low, high = row["recall_interval"]
        assert f"{row['recall']:.3f} ({low:.3f}{DASH}{high:.3f})" in found
        low, high = report["class_intervals"][row["class"]]["auprc"]
        assert f"{row['auprc']:.3f} ({low:.3f}{DASH}{high:.3f})" in found
    for part in report["subgroups"]["sex"]:
        assert f"{part['accuracy']:.3f} ({part['intervals']['accuracy'][0]:.3f}" in found
        assert f"{part['constant_accuracy']:.3f}" in found
    for text in (
        "nothing leaks",
        "d" * 64,
        "5" * 64,
        "Seeds: 0 for weights, order and augmentation; 0 for the split",
        "training.learning_rate 0.001 0.0001",
        "Temperature 1.300, fitted on validation alone",
        "β = 0.750, so the kept weights never saw the focal loss alone",
        "torch 2.11",
        "node-a",
        "not known to this program; ask who gave you the images",
        "Not a medical device",
    ):
        assert text in found, text
    point = report["operating_points"][0]
    assert f"{point['threshold']:.3f} {point['sensitivity']:.3f} (" in found


def test_what_differs_from_the_defaults_is_marked_and_nothing_else(pages: dict[str, str]) -> None:
    rows = re.findall(r'<tr class="changed"><th scope="row"><code>(.*?)</code>', pages["training"])
    assert rows == ["model.name", "training.epochs", "training.learning_rate"]


def test_the_worst_errors_come_with_all_that_one_needs_to_find_them(training: Material, pages: dict[str, str]) -> None:
    html = pages["training"]
    section = words(html.split('id="errors"')[1].split("</section>")[0])
    for shown in worst(training.pictures):
        told = f"truth {shown.truth}, answer {shown.predicted} with p = {shown.probability:.3f}"
        assert told in section
        assert f"{shown.image_id} of {shown.group}" in section
    assert html.count(f"base64,{training.pictures[0].overlay}") >= len(worst(training.pictures))


def test_what_leaks_is_shouted(training: Material) -> None:
    leaking = {"groups": 9, "images": 23, "share": 0.387}
    report = {**training.report, "leakage": leaking, "split": {**training.report["split"], "unit": "image"}}
    report["spec"] = {**report["spec"], "split": {**report["spec"]["split"], "unit": "image"}}
    made = replace(training, report=report)
    found = words(run_page(made).html)
    assert "38.7 % OF THE TEST IMAGES LEAK." in found
    assert "IMAGE-LEVEL SPLIT." in found
    assert "nothing leaks" not in found
    assert "THE SPLIT IS BY IMAGE. TEST IMAGES LEAK." in model_card(made)


def test_drawn_images_are_called_so(training: Material) -> None:
    made = replace(training, report={**training.report, "synthetic": True})
    assert "The images were drawn by program." in words(run_page(made).html)
    assert "drawn by program" in model_card(made)


def test_a_figure_that_fails_is_told_and_the_rest_stands(training: Material, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no <canvas> left")

    monkeypatch.setattr(figures, "ranking", broken)
    page = run_page(training)
    assert page.problems == ("ranking: RuntimeError: no <canvas> left",)
    assert words(page.html).count("RuntimeError: no <canvas> left") == 2  # at the head and in its place
    assert 'id="curves-figure_1"' in page.html
    assert 'id="ranking-figure_1"' not in page.html


def test_a_class_without_test_images_is_told() -> None:
    found = words(run_page(material(absent=1)).html)
    assert "No test image is of class nv: nothing can be said of it" in found


LEAST = {"kind": "train", "environment": {}}


OPTIONAL = (
    "data", "class_counts", "written_at", "intervals", "class_intervals", "calibration", "operating_points",
    "subgroups", "findings",
)  # fmt: skip


@pytest.mark.parametrize("left_out", [("curves", "figures"), ("kept",), OPTIONAL, "all"])
def test_a_report_of_an_older_version_makes_a_page_too(training: Material, left_out: str | tuple[str, ...]) -> None:
    report = {name: value for name, value in training.report.items() if name not in left_out}
    made = Material(LEAST if left_out == "all" else report, training.table)
    page = run_page(made)
    assert page.problems == ()
    assert "there are no pictures of them" in words(page.html)
    assert ("This run kept no curves" in words(page.html)) is ("curves" in left_out or left_out == "all")
    assert model_card(made).startswith("# Model card")


# ── A cross-validation ───────────────────────────────────────────────────────────────────────────────────────────


def test_a_cross_validation_is_told_fold_by_fold(crossed: Material, pages: dict[str, str]) -> None:
    found = words(pages["cross-validation"])
    assert "A figure is missing" not in found
    for fold in crossed.folds:
        accuracy, ends = fold["figures"]["accuracy"], fold["intervals"]["accuracy"]
        constant = fold["figures"]["constant_predictor"]["accuracy"]
        assert f"{accuracy:.3f} ({ends[0]:.3f}{DASH}{ends[1]:.3f}) {constant:.3f}" in found
    assert "mean ± SD 0.610 ± 0.042" in found
    assert "Temperature of each fold 1.300, 1.400" in found
    assert "each image answered by the net that did not learn from it" in found
    assert "fold 0" in found
    assert "fold 1" in found


def test_the_worst_errors_of_all_folds_stand_together(pages: dict[str, str]) -> None:
    of_folds = [worst(pictures(table(CLASSES, fold=fold))) for fold in (0, 1)]
    together = worst([picture for fold in of_folds for picture in fold])
    assert {picture.fold for picture in together} == {0, 1}
    section = pages["cross-validation"].split('id="errors"')[1].split("</section>")[0]
    assert re.findall(r"<code>(IMG_\w+)</code>", section) == [picture.image_id for picture in together]


def test_folds_of_an_older_version_are_pooled_without_pictures_and_curves(crossed: Material) -> None:
    folds = [{name: value for name, value in fold.items() if name not in ("curves", "data")} for fold in crossed.folds]
    page = run_page(replace(crossed, folds=folds, pictures=()))
    assert page.problems == ()
    assert "This run kept no curves" in words(page.html)


def test_the_card_of_a_cross_validation_says_that_it_is_of_no_single_model(crossed: Material) -> None:
    card = model_card(crossed)
    assert "2 nets, one a fold; none of them is the model to be used" in card
    assert "Split of fold 1, SHA-256" in card


# ── A study ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_study_is_told_with_its_tests_and_what_is_missing() -> None:
    report = study_report(missing=[{"variant": "CE", "seed": 1, "fold": 0, "why": "out_of_memory: too large"}])
    page = study_page(report, table_rows(report))
    found = words(page.html)
    assert page.problems == ()
    assert "Balanced accuracy BGPANet 0.620 0.570 +0.050 -0.020 to +0.120 +2.310 0.041 0.123" in found
    assert "always nv 0.140 0.670" in found
    assert "1 training is missing." in found
    assert "CE 1 0 out_of_memory: too large" in found
    assert '{"model": "bgpanet_micro"}' in found
    assert 'id="variants-figure_1"' in page.html
    assert 'id="differences-figure_1"' in page.html


def test_a_study_without_tests_says_so() -> None:
    report = study_report(tests=[])
    page = study_page(report, table_rows(report))
    assert page.problems == ()
    assert "Nothing was tested" in words(page.html)
