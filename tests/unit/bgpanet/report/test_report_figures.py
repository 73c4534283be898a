"""What is drawn is what was measured."""

import re
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from bgpanet.report import figures, forest
from bgpanet.report.drawing import LONGEST, inline_svg, png_file, short, style, svg_file
from bgpanet.report.pages import Material
from tests.unit.bgpanet.report.conftest import CLASSES, curves, report, table


def lines(at: Axes) -> dict[str, np.ndarray]:
    return {str(line.get_label()): np.asarray(line.get_xydata()) for line in at.get_lines()}


@pytest.mark.parametrize("n", [31, 3000])
def test_the_areas_under_the_curves_are_the_reported_ones(n: int) -> None:
    """3000 images have more thresholds than are drawn."""
    found = table(CLASSES, n)
    rows = report(found)["figures"]["per_class"]
    with style():
        figure = figures.ranking(found.truth_labels(), np.asarray(found.probabilities, dtype=np.float64), rows)
    roc, pr, _ = figure.axes
    for row, under_roc, under_pr in zip(rows, roc.get_lines(), pr.get_lines(), strict=False):
        x, y = np.asarray(under_roc.get_xydata()).T
        assert np.trapezoid(y, x) == pytest.approx(row["auroc"], abs=1e-9 if n < 100 else 2e-3)
        recall, precision = np.asarray(under_pr.get_xydata()).T
        assert np.sum(np.diff(recall) * precision[1:]) == pytest.approx(row["auprc"], abs=1e-9 if n < 100 else 5e-3)
        assert len(x) <= figures.MOST_POINTS + 1


def test_a_class_without_test_images_has_no_curve_but_stands_in_the_legend() -> None:
    found = table(CLASSES, absent=0)
    rows = report(found)["figures"]["per_class"]
    with style():
        figure = figures.ranking(found.truth_labels(), np.asarray(found.probabilities, dtype=np.float64), rows)
    assert len(figure.axes[0].get_lines()) == 3  # two classes and the diagonal
    assert list(lines(figure.axes[2])) == ["mel (0)", "nv (30)", "bkl (30)"]


def test_curves_share_one_axis_and_mark_what_was_kept() -> None:
    with style():
        figure = figures.curves({"training": curves()}, {"epoch 3": 30}, chance=1 / 3)
    loss, accuracy, rate, weights = figure.axes
    assert [at.get_title(loc="left") for at in figure.axes] == list(figures.PANELS)
    assert {at.get_xlim() for at in figure.axes} == {loss.get_xlim()}
    drawn = lines(loss)
    assert drawn["validation, cross-entropy"].T.tolist() == curves()["validation_loss"]
    assert drawn["training, mean of the epoch"].T.tolist() == curves()["train_loss_of_epoch"]
    assert lines(weights)["focal"].T.tolist() == curves()["loss_weight_focal"]
    assert lines(rate)["learning rate"].T.tolist() == curves()["learning_rate"]
    straight = [np.asarray(line.get_xydata()).tolist() for at in figure.axes for line in at.get_lines()]
    assert straight.count([[30, 0], [30, 1]]) == 4
    assert [[0, 1 / 3], [1, 1 / 3]] in [np.asarray(line.get_xydata()).tolist() for line in accuracy.get_lines()]


def test_a_loss_without_weights_has_no_panel_for_them() -> None:
    plain = {name: curve for name, curve in curves().items() if not name.startswith("loss_weight")}
    with style():
        assert len(figures.curves({"training": plain}, {"epoch 1": 10}, 0.5).axes) == 3


def test_a_reliability_diagram_shows_the_bins_that_have_images(training: Material) -> None:
    calibration = training.report["calibration"]
    with style():
        figure = figures.reliability(calibration)
    drawn = lines(figure.axes[0])
    for label, name in {"as predicted": "before", "temperature-scaled": "after"}.items():
        rows = [row for row in calibration[name]["reliability"] if row["images"]]
        assert drawn[label].tolist() == [[row["confidence"], row["accuracy"]] for row in rows]


def summary() -> dict[str, Any]:
    """Of a study."""
    values = {"mean": 0.6, "sd": 0.1, "interval": [0.5, 0.7], "folds": [0.55, 0.65]}
    names = ["Swin", "BGPANet"]
    return {
        "reference": "Swin",
        "variants": [{"variant": name, "figures": dict.fromkeys(forest.PANELS, values)} for name in names],
        "tests": [
            {"system": "BGPANet", "figure": name, "difference": 0.05, "interval": [-0.02, 0.12]}
            for name in forest.PANELS
        ],
        "constant_predictor": {"class": "nv", "accuracy": 0.67, "balanced_accuracy": 0.14},
    }


def test_a_forest_plot_has_a_row_for_each_variant_and_the_constant_predictor() -> None:
    with style():
        figure = forest.variants(summary())
        apart = forest.differences(summary())
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ["Swin (reference)", "BGPANet"]
    constant = {
        at.get_title(loc="left"): [np.asarray(line.get_xydata())[0, 0] for line in at.get_lines()] for at in figure.axes
    }
    assert constant == {"Balanced accuracy": [0.14], "Macro F1": [], "Accuracy": [0.67], "AUROC, macro": []}
    lines_of = apart.axes[0].collections[0]
    assert isinstance(lines_of, LineCollection)
    (line,) = lines_of.get_segments()
    assert np.asarray(line).tolist() == [[-0.02, 0], [0.12, 0]]


def test_a_figure_takes_the_colours_of_its_page_and_its_text_stays_text() -> None:
    with style():
        figure = forest.variants(summary())
        svg = inline_svg(figure, "study")
        assert inline_svg(figure, "study") == svg
        assert b"http://www.w3.org/2000/svg" in svg_file(figure)
        assert png_file(figure).startswith(b"\x89PNG")
    assert re.match(r"<svg [^>]*style=\"max-width: [\d.]+pt\"", svg)
    assert not re.search(r"#[0-9a-f]{6}\b", svg)
    assert "var(--series-1)" in svg
    assert ">BGPANet</text>" in svg
    assert set(re.findall(r'id="([^"]+)"', svg)) >= set(re.findall(r'(?:href="|url\()#([^")]+)', svg))
    assert all(name.startswith("study-") for name in re.findall(r'id="([^"]+)"', svg))


def test_names_in_a_figure_are_short_plain_and_in_any_script() -> None:
    assert short("a\nb") == "a b"
    assert len(short("x" * 100)) == LONGEST
    odd = [r"$\frac{", "皮膚 <b>", "nv"]
    found = table(odd)
    with style():
        probabilities = np.asarray(found.probabilities, dtype=np.float64)
        svg = inline_svg(
            figures.ranking(found.truth_labels(), probabilities, report(found)["figures"]["per_class"]), "r"
        )
    assert r"$\frac{ (20)" in svg
    assert "皮膚 &lt;b&gt; (20)" in svg
