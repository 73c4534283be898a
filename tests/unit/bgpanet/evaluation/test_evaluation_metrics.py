"""Figures equal scikit-learn's, or a plain loop where scikit-learn has none; what is undefined is None."""

import json
import math
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import sklearn.metrics as reference
from scipy.stats import binomtest

from bgpanet.errors import InvalidInput
from bgpanet.evaluation.metrics import classification_metrics

Case = tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]


def _random(n: int, k: int, seed: int) -> Case:
    rng = np.random.default_rng(seed)
    y = rng.choice(k, size=n, p=rng.dirichlet(np.full(k, 2.0)))
    p = rng.dirichlet(np.full(k, 0.5), size=n)
    p[np.arange(n), y] += 0.4
    return y, p / p.sum(axis=1, keepdims=True)


def _never_predicted(k: int, never: int) -> Case:
    y, p = _random(200, k, seed=7)
    p[:, never] = 0
    return y, p / p.sum(axis=1, keepdims=True)


def _absent(k: int, absent: int) -> Case:
    y, p = _random(200, k, seed=8)
    p[::9, absent] += 3
    return np.where(y == absent, (absent + 1) % k, y), p / p.sum(axis=1, keepdims=True)


def _tied() -> Case:
    """Probabilities of few distinct values, so that predictions and rankings are full of ties."""
    rng = np.random.default_rng(9)
    return rng.integers(4, size=120), np.array([[0.5, 0.5, 0, 0], [0.25] * 4, [0, 0, 0.5, 0.5]])[
        rng.integers(3, size=120)
    ]


CASES: dict[str, Case] = {
    "two classes": _random(300, 2, seed=1),
    "three classes": _random(50, 3, seed=2),
    "seven classes": _random(400, 7, seed=3),
    "seven classes, few images": _random(9, 7, seed=4),
    "a class never predicted": _never_predicted(7, never=5),
    "a class absent but predicted": _absent(7, absent=2),
    "one of two classes absent": _absent(2, absent=1),
    "ties": _tied(),
    "certain and right": (np.arange(7).repeat(3), np.eye(7).repeat(3, axis=0)),
    "certain and wrong": (np.arange(7).repeat(3), np.eye(7).repeat(3, axis=0)[::-1]),
    "one image": (np.array([1]), np.array([[0.2, 0.8]])),
    "one constant class, rightly predicted": (np.zeros(5, dtype=np.int64), np.tile([0.9, 0.1], (5, 1))),
}


@pytest.fixture(params=list(CASES))
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[str(request.param)]


def _reference(name: str, *args: Any, **kwargs: Any) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns where a figure is undefined or a class is missing
        return float(getattr(reference, name)(*args, **kwargs))


def test_figures_of_predicted_classes_equal_scikit_learns(case: Case) -> None:
    y, p = case
    predicted, present = p.argmax(axis=1), np.unique(y)
    macro = {"average": "macro", "labels": present, "zero_division": 0}
    expected = {
        "accuracy": _reference("accuracy_score", y, predicted),
        "balanced_accuracy": _reference("balanced_accuracy_score", y, predicted),
        "macro_recall": _reference("recall_score", y, predicted, **macro),
        "macro_precision": _reference("precision_score", y, predicted, **macro),
        "macro_f1": _reference("f1_score", y, predicted, **macro),
        "mcc": _reference("matthews_corrcoef", y, predicted),
    }
    figures = classification_metrics(y, p)
    assert {name: figures[name] for name in expected} == pytest.approx(expected, abs=1e-12)
    assert figures["n"] == len(y)


def test_kappa_equals_scikit_learns_and_is_none_where_that_is_nan(case: Case) -> None:
    y, p = case
    expected = _reference("cohen_kappa_score", y, p.argmax(axis=1))
    assert classification_metrics(y, p)["cohen_kappa"] == (
        None if math.isnan(expected) else pytest.approx(expected, abs=1e-12)
    )


def test_nll_and_brier_equal_scikit_learns(case: Case) -> None:
    y, p = case
    labels = range(p.shape[1])
    figures = classification_metrics(y, p)
    assert figures["nll"] == pytest.approx(_reference("log_loss", y, p, labels=labels), abs=1e-12)
    one_hot = np.eye(p.shape[1])[y]
    assert figures["brier"] == pytest.approx(p.shape[1] * _reference("mean_squared_error", one_hot, p), abs=1e-12)


def test_the_confusion_matrix_equals_scikit_learns(case: Case) -> None:
    y, p = case
    expected = reference.confusion_matrix(y, p.argmax(axis=1), labels=range(p.shape[1]))
    assert classification_metrics(y, p)["confusion_matrix"] == expected.tolist()


def test_per_class_figures_equal_scikit_learns_and_are_none_where_undefined(case: Case) -> None:
    y, p = case
    predicted = p.argmax(axis=1)
    for k, row in enumerate(classification_metrics(y, p)["per_class"]):
        truth, said = y == k, predicted == k
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scores = reference.precision_recall_fscore_support(
                truth, said, labels=[True], zero_division=np.nan, average=None
            )
        precision, recall, f1, support = (values[0].item() for values in scores)
        mixed = 0 < truth.sum() < len(y)
        wilson = binomtest(int((truth & said).sum()), int(support)).proportion_ci(method="wilson") if support else None
        expected = {
            "precision": precision if said.any() else None,
            "recall": recall if truth.any() else None,
            "recall_interval": None if wilson is None else pytest.approx(tuple(wilson), abs=1e-12),
            "f1": f1 if said.any() or truth.any() else None,
            "auroc": pytest.approx(_reference("roc_auc_score", truth, p[:, k]), abs=1e-12) if mixed else None,
            "auprc": pytest.approx(_reference("average_precision_score", truth, p[:, k]), abs=1e-12)
            if truth.any()
            else None,
        }
        assert (row["class"], row["support"]) == (str(k), support)
        assert {name: row[name] for name in expected} == expected


def test_macro_auroc_equals_scikit_learns_one_against_rest() -> None:
    y, p = CASES["seven classes"]
    expected = _reference("roc_auc_score", y, p, multi_class="ovr", average="macro")
    assert classification_metrics(y, p)["auroc_macro"] == pytest.approx(expected, abs=1e-12)


def test_macro_auprc_equals_scikit_learns() -> None:
    y, p = CASES["seven classes"]
    expected = _reference("average_precision_score", np.eye(7)[y], p, average="macro")
    assert classification_metrics(y, p)["auprc_macro"] == pytest.approx(expected, abs=1e-12)


def test_an_absent_class_is_left_out_of_the_macro_rankings() -> None:
    y, p = CASES["a class absent but predicted"]
    figures = classification_metrics(y, p)
    present = [row for row in figures["per_class"] if row["support"]]
    assert figures["per_class"][2]["auroc"] is None
    assert figures["auroc_macro"] == pytest.approx(np.mean([row["auroc"] for row in present]))
    assert figures["auprc_macro"] == pytest.approx(np.mean([row["auprc"] for row in present]))


def test_macro_auroc_is_none_where_only_one_class_occurs() -> None:
    y, p = CASES["one of two classes absent"]
    assert classification_metrics(y, p)["auroc_macro"] is None


def test_ece_equals_a_loop_over_bins(case: Case) -> None:
    y, p = case
    top, right, expected = p.max(axis=1), p.argmax(axis=1) == y, 0.0
    for b in range(15):
        inside = (top > b / 15) & (top <= (b + 1) / 15)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - top[inside].mean())
    assert classification_metrics(y, p)["ece"] == pytest.approx(expected, abs=1e-12)


def test_ece_of_a_hand_worked_example() -> None:
    """Bin (0.6, 0.667]: 2 of 4 right at 0.64; bin (0.933, 1]: 1 of 1 right at 0.95. 0.8·0.14 + 0.2·0.05 = 0.122."""
    p = [[0.64, 0.36]] * 4 + [[0.95, 0.05]]
    assert classification_metrics([0, 0, 1, 1, 0], p)["ece"] == pytest.approx(0.122)


def test_a_bin_of_ece_is_closed_above() -> None:
    """0.8 is 12/15 and so shares the bin (0.733, 0.8] with 0.75: |1 - 1.55| / 2 = 0.275; apart they give 0.475."""
    assert classification_metrics([0, 1], [[0.8, 0.2], [0.75, 0.25]])["ece"] == pytest.approx(0.275)


def test_figures_are_plain_json_without_nan(case: Case) -> None:
    figures = classification_metrics(*case)
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures


def test_always_benign_on_isic_2020_is_accurate_and_worthless() -> None:
    """584 malignant of 33,126: accuracy 0.98237, balanced accuracy 0.5."""
    y = np.zeros(33_126, dtype=np.int64)
    y[:584] = 1
    figures = classification_metrics(y, np.tile([1.0, 0.0], (33_126, 1)), ["benign", "malignant"])
    assert figures["accuracy"] == pytest.approx(0.98237, abs=5e-6)
    assert figures["balanced_accuracy"] == 0.5
    assert (figures["mcc"], figures["cohen_kappa"]) == (0.0, 0.0)
    constant = figures["constant_predictor"]
    assert constant == {"class": "benign", "accuracy": figures["accuracy"], "balanced_accuracy": 0.5}


def test_the_constant_predictor_scores_what_a_net_that_always_says_its_class_scores(case: Case) -> None:
    y, p = case
    constant = classification_metrics(y, p)["constant_predictor"]
    always = classification_metrics(y, np.tile(np.eye(p.shape[1])[int(constant["class"])], (len(y), 1)))
    assert constant["accuracy"] == pytest.approx(always["accuracy"])
    assert constant["balanced_accuracy"] == pytest.approx(always["balanced_accuracy"])
    assert constant["accuracy"] == np.bincount(y).max() / len(y)


def test_rows_that_sum_to_nearly_one_are_taken_as_shares_of_their_sum() -> None:
    y, p = CASES["seven classes"]
    scale = 1 + 9e-4 * np.resize([1, -1], len(y))
    expected, scaled = classification_metrics(y, p), classification_metrics(y, p * scale[:, None])
    for name in ("nll", "brier", "ece"):
        assert scaled[name] == pytest.approx(expected[name], abs=1e-12)


def test_a_probability_of_zero_for_the_truth_gives_a_finite_nll() -> None:
    assert classification_metrics([0], [[0.0, 1.0]])["nll"] == pytest.approx(52 * math.log(2))


def test_single_precision_input_gives_the_figures_of_its_values() -> None:
    y, p = CASES["seven classes"]
    narrow = p.astype(np.float32)
    assert classification_metrics(y, narrow) == classification_metrics(y, narrow.astype(np.float64))


@pytest.mark.parametrize(
    ("y", "p", "classes", "told"),
    [
        ([0], [0.5, 0.5], None, ["probabilities: must be numbers of shape"]),
        ([0, 0], [[1.0], [1.0]], None, ["at least 2 classes"]),
        ([], np.empty((0, 2)), None, ["there are no images"]),
        ([0.0], [[0.5, 0.5]], None, ["y_true: must be whole class indices"]),
        ([[0]], [[0.5, 0.5]], None, ["y_true: must be whole class indices"]),
        ([0, 1], [[0.5, 0.5]], None, ["2 labels for 1 rows"]),
        ([0, 2, -1], [[0.5, 0.5]] * 3, None, ["y_true[1]: label 2 is outside 0…1, in 2 rows"]),
        ([0, 0], [[0.5, 0.5], [np.nan, 0.5]], None, ["probabilities[1]: must be finite"]),
        ([0, 0], [[0.5, 0.5], [np.inf, 0.5]], None, ["probabilities[1]: must be finite"]),
        ([0], [[1.1, -0.1]], None, ["probabilities[0]: must not be negative"]),
        ([0, 0], [[0.5, 0.5], [0.5, 0.502]], None, ["probabilities[1]: must sum to 1 within 0.001; wrong in 1 rows"]),
        ([0], [[0.5, 0.5]], ["a"], ["classes: names 1 classes for 2 columns"]),
        ([0], [[0.5, 0.5]], ["a", "a"], ["classes: names a class twice"]),
        (
            [0, 9, 0, 0],
            [[0.5, 0.5], [0.9, 0.9], [2.0, -1.0], [np.nan, 1.0]],
            ["a"],
            ["y_true[1]", "[1]: must sum", "[2]: must not be negative", "[3]: must be finite", "classes"],
        ),
    ],
)
def test_nonsense_is_refused_with_every_problem(y: Any, p: Any, classes: Any, told: list[str]) -> None:
    with pytest.raises(InvalidInput) as refusal:
        classification_metrics(y, p, classes)
    assert len(refusal.value.problems) == len(told)
    for part in told:
        assert part in str(refusal.value)
