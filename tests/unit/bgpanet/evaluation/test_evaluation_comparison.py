"""Comparing systems fold by fold."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bgpanet.errors import InvalidInput
from bgpanet.evaluation.comparison import FIGURES, System, TestedFold, compare, fold_scores, mean_draws
from bgpanet.evaluation.metrics import classification_metrics
from bgpanet.evaluation.statistics import corrected_paired_t, holm

CLASSES = ["a", "b", "c"]


def system(name: str, skill: float, seed: int, folds: int = 5) -> System:
    """Systems of the same division; a larger skill is better."""
    truth, noise = np.random.default_rng(0), np.random.default_rng(seed)
    made = []
    for fold in range(folds):
        y = truth.integers(3, size=60)
        p = noise.dirichlet(np.ones(3), size=60) + skill * np.eye(3)[y]
        order = noise.permutation(60)
        made.append(
            TestedFold(
                image_ids=[f"{fold}/{n}" for n in order],
                groups=[f"{fold}/{n // 2}" for n in order],
                y_true=y[order],
                probabilities=(p / p.sum(axis=1, keepdims=True))[order],
                n_train=240,
            )
        )
    return System(name, CLASSES, [made])


def test_the_tests_are_those_of_the_folds_figures_with_holm_over_the_systems() -> None:
    reference, others = system("swin", 0.5, 1), [system("bgpa", 0.9, 2), system("same", 0.5, 3)]
    rows = compare(reference, others)
    assert [(row["figure"], row["system"]) for row in rows[:2]] == [
        ("balanced_accuracy", "bgpa"), ("balanced_accuracy", "same"),
    ]  # fmt: skip
    for number, figure in enumerate(FIGURES):
        scores = [[classification_metrics(f.y_true, f.probabilities)[figure] for f in s.runs[0]] for s in
                  (reference, *others)]  # fmt: skip
        p = [corrected_paired_t(scores[n], scores[0], 240, 60).p for n in (1, 2)]
        mine = rows[2 * number : 2 * number + 2]
        assert [row["p"] for row in mine] == pytest.approx(p)
        assert [row["p_holm"] for row in mine] == pytest.approx(holm(p))
        assert mine[0]["difference"] == pytest.approx(np.mean(scores[1]) - np.mean(scores[0]))
    better = rows[0]
    assert better["p_holm"] < 0.05
    assert better["interval"][0] > 0


def test_a_system_does_not_differ_from_itself() -> None:
    one = system("swin", 0.5, 1)
    for row in compare(one, [replace(one, name="again")]):
        assert (row["difference"], row["interval"], row["p_holm"]) == (0, [0, 0], 1)


def test_a_difference_that_is_the_same_in_every_fold_is_told_in_plain_json() -> None:
    """A net that knows all against one that always says the same, as small and easy data sets give."""
    knows = system("knows", 100.0, 1)
    runs = [[replace(f, y_true=np.arange(60) % 3, probabilities=np.eye(3)[np.arange(60) % 3]) for f in knows.runs[0]]]
    knows = replace(knows, runs=runs)
    always = [replace(fold, probabilities=np.tile([0.8, 0.1, 0.1], (60, 1))) for fold in knows.runs[0]]
    rows = compare(System("always", CLASSES, [always]), [knows])
    told = json.loads(json.dumps(rows, allow_nan=False))
    assert [row["t"] for row in told] == [None] * len(FIGURES)
    assert told[0]["difference"] == pytest.approx(2 / 3)
    assert told[0]["interval"][0] > 0


def last(made: System, **changes: Any) -> System:
    """The same with another last fold."""
    return replace(made, runs=[[*made.runs[0][:-1], replace(made.runs[0][-1], **changes)]])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda made: replace(made, classes=["a", "c", "b"]), "other classes"),
        (lambda made: replace(made, runs=[made.runs[0][:4]]), r"\[4\] and \[5\] folds"),
        (lambda made: last(made, n_train=200), "learned from 200 and 240"),
        (lambda made: last(made, image_ids=[f"x{n}" for n in range(60)]), "fold 4 was tested on other images"),
        (lambda made: last(made, y_true=(made.runs[0][4].y_true + 1) % 3), "other labels"),
    ],
)
def test_systems_that_were_not_tested_on_the_same_are_not_compared(change: Any, told: str) -> None:
    with pytest.raises(InvalidInput, match=told):
        compare(system("swin", 0.5, 1), [change(system("other", 0.5, 2))])


def test_several_seeds_count_by_their_mean_under_the_same_draws() -> None:
    first, second = system("a", 0.5, 1), system("a", 0.5, 7)
    both = replace(first, runs=[*first.runs, *second.runs])
    scores = fold_scores(both)
    for figure in FIGURES:
        singles = [fold_scores(one)[figure] for one in (first, second)]
        assert scores[figure] == pytest.approx(np.mean(singles, axis=0).tolist())
        draws = [mean_draws(one, 50)[figure] for one in (first, second)]
        assert mean_draws(both, 50)[figure] == pytest.approx(np.mean(draws, axis=0))
    row = compare(both, [replace(both, name="again")])[0]
    assert (row["difference"], row["interval"]) == (0, [0, 0])
