"""Splits that show no net what it is tested on; most of it as properties of any labels and groups."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgpanet.data.index import Index
from bgpanet.data.readers import read
from bgpanet.data.splits import Split, grouped_folds, leakage, lock, make_split, subset
from bgpanet.errors import InvalidInput


@st.composite
def labelled_groups(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int]:
    """Labels (N,), groups (N,), and a number of folds that every class has groups for."""
    k = draw(st.integers(2, 5))
    sizes = draw(st.lists(st.lists(st.integers(1, 6), min_size=k, max_size=k + 12), min_size=1, max_size=4))
    rows = [(label, f"{label}/{n}") for label, found in enumerate(sizes) for n, size in enumerate(found)
            for _ in range(size)]  # fmt: skip
    order = draw(st.permutations(range(len(rows))))
    return np.array([rows[n][0] for n in order]), np.array([rows[n][1] for n in order]), k


@given(labelled_groups(), st.integers(0, 3))
def test_every_image_is_tested_once_and_no_group_is_on_both_sides(
    made: tuple[np.ndarray, np.ndarray, int], seed: int
) -> None:
    labels, groups, k = made
    folds = grouped_folds(labels, groups, k, seed)
    assert sorted(np.concatenate([test for _, test in folds]).tolist()) == list(range(len(labels)))
    for train, test in folds:
        assert sorted([*train.tolist(), *test.tolist()]) == list(range(len(labels)))
        assert not set(groups[train]) & set(groups[test])
        assert set(labels[train]) == set(labels[test]) == set(labels)
        assert leakage(groups, train, test).share == 0


@given(labelled_groups())
def test_folds_differ_by_no_more_than_the_largest_group_of_a_class(made: tuple[np.ndarray, np.ndarray, int]) -> None:
    labels, groups, k = made
    folds = grouped_folds(labels, groups, k)
    for label in set(labels):
        largest = max(Counter(groups[labels == label].tolist()).values())
        counts = [int((labels[test] == label).sum()) for _, test in folds]
        assert max(counts) - min(counts) <= largest


@given(labelled_groups(), st.integers(0, 3))
def test_the_same_seed_gives_the_same_folds(made: tuple[np.ndarray, np.ndarray, int], seed: int) -> None:
    labels, groups, k = made
    for (_, once), (_, again) in zip(
        grouped_folds(labels, groups, k, seed), grouped_folds(labels, groups, k, seed), strict=True
    ):
        assert np.array_equal(once, again)


def test_another_seed_gives_other_folds() -> None:
    labels, groups = np.zeros(50, int), np.arange(50)
    assert not np.array_equal(grouped_folds(labels, groups, 5, 0)[0][1], grouped_folds(labels, groups, 5, 1)[0][1])


def test_all_classes_that_are_too_small_are_told_together() -> None:
    labels, groups = [0] * 9 + [1] * 3 + [2] * 5, [*range(9), 20, 20, 21, *range(30, 35)]
    with pytest.raises(InvalidInput) as caught:
        grouped_folds(labels, groups, 6)
    assert [problem.where for problem in caught.value.problems] == ["class 1", "class 2"]
    assert "has 2 groups, fewer than 6 folds" in str(caught.value)


@pytest.mark.parametrize(("labels", "groups", "k"), [([], [], 2), ([0, 0], [0], 2), ([0, 0], [0, 1], 1)])
def test_what_can_not_be_divided_is_refused(labels: list[int], groups: list[int], k: int) -> None:
    with pytest.raises(InvalidInput):
        grouped_folds(labels, groups, k)


def test_leakage_counts_test_images_whose_group_was_trained_on() -> None:
    groups = np.array(["a", "a", "b", "b", "c", "d"])
    found = leakage(groups, np.array([0, 2]), np.array([1, 3, 4, 5]))
    assert (found.groups, found.images, found.share) == (2, 2, 0.5)
    assert leakage(groups, np.array([0]), np.array([], dtype=np.int64)).share == 0


def split_of(index: Index, **changes: object) -> Split:
    options = {"unit": "lesion", "folds": 3, "fold": 1, "validation_folds": 2, "seed": 0, **changes}
    return make_split(index, np.arange(len(index.records)), **options)  # type: ignore[arg-type]


def test_train_validation_and_test_share_no_lesion_and_leave_nothing_out(index: Index) -> None:
    split = split_of(index)
    parts = [split.train, split.validation, split.test]
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(index.records)))
    for one in parts:
        assert set(index.labels[one]) == set(range(7))
        for other in parts:
            assert one is other or leakage(index.groups, one, other).images == 0


def test_the_digest_of_a_split_changes_with_what_is_in_it(index: Index) -> None:
    digests = {split_of(index, **change).digest(index) for change in ({}, {"fold": 0}, {"seed": 1}, {"folds": 4})}
    assert len(digests) == 4
    assert split_of(index).digest(index) in digests


def test_a_split_by_image_tears_lesions_apart_and_the_figure_says_so(index: Index) -> None:
    split = split_of(index, unit="image")
    assert leakage(index.groups, np.concatenate([split.train, split.validation]), split.test).images > 0


def test_a_subset_takes_whole_groups_and_no_more_than_asked_of_a_class(index: Index) -> None:
    chosen = subset(index.labels, index.groups, 3, seed=0)
    for label in range(7):
        mine = chosen[index.labels[chosen] == label]
        assert len(set(index.groups[mine])) == 3
    assert not set(index.groups[chosen]) & set(np.delete(index.groups, chosen))
    assert not np.array_equal(chosen, subset(index.labels, index.groups, 3, seed=1))


@pytest.mark.real_data
def test_on_the_real_ham10000_lesions_stay_together_and_a_split_by_image_leaks_over_a_third(ham10000: Path) -> None:
    index = read("ham10000", ham10000)
    folds = grouped_folds(index.labels, index.groups, 5)
    assert [len(test) for _, test in folds] == [2003] * 5
    for train, test in folds:
        assert leakage(index.groups, train, test).images == 0
        for label, count in Counter(index.labels.tolist()).items():
            assert abs(int((index.labels[test] == label).sum()) - count / 5) <= 1
    by_image = grouped_folds(index.labels, np.arange(len(index.records)), 5)
    shares = [leakage(index.groups, train, test).share for train, test in by_image]
    assert 0.36 < sum(shares) / 5 < 0.41


@pytest.mark.parametrize(("share", "parts"), [(0.5, 2), (0.25, 4)])
def test_a_locked_part_shares_no_group_with_the_open_one_and_has_every_class(
    index: Index, share: float, parts: int
) -> None:
    opened, locked = lock(index, share)
    assert len(opened.records) + len(locked.records) == len(index.records)
    assert not set(opened.groups) & set(locked.groups)
    assert set(locked.labels) == set(opened.labels) == set(index.labels)
    largest = max(Counter(index.groups.tolist()).values())
    assert abs(len(locked.records) - len(index.records) / parts) <= len(index.classes) * largest
    assert lock(index, share) == (opened, locked)
    assert lock(index, share, seed=1)[1].digest != locked.digest


def test_what_has_no_label_is_not_locked(index: Index) -> None:
    unlabelled = replace(index, records=(*index.records[1:], replace(index.records[0], label=None)))
    opened, locked = lock(unlabelled, 0.5)
    assert index.records[0].image_id in {record.image_id for record in opened.records}
    assert all(record.label is not None for record in locked.records)
