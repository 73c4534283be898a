"""Honest splits: no lesion or patient on both sides, every class in every part, the same for the same seed."""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from bgpanet.data.index import Index
from bgpanet.errors import InvalidInput, Problem

Positions = npt.NDArray[np.int64]
Values = Sequence[Hashable] | npt.NDArray[np.generic]


@dataclass(frozen=True)
class Split:
    """Positions of the three parts in the index's records, sorted."""

    train: Positions
    validation: Positions
    test: Positions

    def digest(self, index: Index) -> str:
        """SHA-256, hex, over which image is in which part: equal digests saw the same images."""
        parts = [
            sorted([index.records[n].image_id, index.records[n].sha256] for n in part)
            for part in (self.train, self.validation, self.test)
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@dataclass(frozen=True)
class Leakage:
    """What a split shows on both sides.

    groups: on both sides. images: test images whose group is also in training. share: of all test images, 0 to 1.
    """

    groups: int
    images: int
    share: float


def grouped_folds(labels: Values, groups: Values, k: int = 5, seed: int = 0) -> list[tuple[Positions, Positions]]:
    """k divisions into (train, test) positions, sorted; every image is in exactly one test part.

    All images of a group stay together. Classes are dealt one after the other, the rarest first: each group, in an
    order drawn by `seed` with the larger first, goes to the fold that has the fewest images of its class so far, then
    the fewest in all. A group's class is its most frequent label (of equals the smallest). So every class with k
    groups is in every test part, and in every training part.

    Raises:
        InvalidInput: lengths differ, k < 2, or classes with fewer than k groups; with all of them.
    """
    label_list, group_list = list(labels), list(groups)
    if len(label_list) != len(group_list):
        raise InvalidInput.one("groups", f"must be as many as labels: {len(group_list)} and {len(label_list)}")
    if k < 2:
        raise InvalidInput.one("k", f"must be 2 or more, not {k}")
    members: defaultdict[Hashable, list[int]] = defaultdict(list)
    for position, group in enumerate(group_list):
        members[group].append(position)
    by_class = _groups_by_class(label_list, members)
    problems = [
        Problem(f"class {name}", f"has {len(found)} groups, fewer than {k} folds; use fewer folds or merge the class")
        for name, found in sorted(by_class.items())
        if len(found) < k
    ]
    if problems or not by_class:
        raise InvalidInput(problems or [Problem("labels", "are empty")])
    fold_of = _deal(by_class, members, k, seed)
    assigned = np.array([fold_of[group] for group in group_list], dtype=np.int64)
    return [(np.flatnonzero(assigned != fold), np.flatnonzero(assigned == fold)) for fold in range(k)]


def _groups_by_class(labels: list[Hashable], members: dict[Hashable, list[int]]) -> dict[Any, list[Hashable]]:
    by_class: defaultdict[Any, list[Hashable]] = defaultdict(list)
    for group, positions in members.items():
        counts: Counter[Any] = Counter(labels[position] for position in positions)
        by_class[min(counts, key=lambda label: (-counts[label], label))].append(group)
    return by_class


def _deal(
    by_class: dict[Any, list[Hashable]], members: dict[Hashable, list[int]], k: int, seed: int
) -> dict[Hashable, int]:
    rng = np.random.Generator(np.random.Philox(seed))
    total = [0] * k
    fold_of: dict[Hashable, int] = {}
    for label in sorted(by_class, key=lambda name: (len(by_class[name]), name)):
        order = [by_class[label][n] for n in rng.permutation(len(by_class[label]))]
        order.sort(key=lambda group: -len(members[group]))
        images, groups = [0] * k, [0] * k
        for group in order:
            # Fewest groups first would ignore sizes; but a fold without any group of the class always comes first.
            fold = min(range(k), key=lambda n: (groups[n] > 0, images[n], total[n], n))
            fold_of[group] = fold
            groups[fold] += 1
            images[fold] += len(members[group])
            total[fold] += len(members[group])
    return fold_of


def make_split(
    index: Index,
    positions: Positions,
    *,
    unit: Literal["lesion", "image"],
    folds: int,
    fold: int,
    validation_folds: int,
    seed: int,
) -> Split:
    """The split of the images at `positions` whose test part is fold `fold` of `folds`.

    Validation is the first of `validation_folds` parts of the rest, cut by the same rule. With unit `image` every
    image is its own group, which leaks and is there to reproduce papers.

    Raises:
        InvalidInput: as `grouped_folds`.
    """
    labels = np.array(index.classes)[index.labels[positions]]  # by name, so that what is wrong is told by name
    groups = index.groups[positions] if unit == "lesion" else positions
    rest, test = grouped_folds(labels, groups, folds, seed)[fold]
    train, validation = grouped_folds(labels[rest], groups[rest], validation_folds, seed)[0]
    return Split(positions[rest[train]], positions[rest[validation]], positions[test])


def lock(index: Index, share: float, seed: int = 0) -> tuple[Index, Index]:
    """(open, locked): a data set cut in two by whole groups, stratified by class, for good. `share` is about what is
    locked: one part of round(1 / share). Images without a label stay open.

    Raises:
        InvalidInput: as `grouped_folds`: every class must be in both parts.
    """
    labelled = np.flatnonzero(index.labels >= 0)
    names = np.array(index.classes)[index.labels[labelled]]
    _, test = grouped_folds(names, index.groups[labelled], max(2, round(1 / share)), seed)[0]
    groups = set(index.groups[labelled[test]].tolist())
    inside = [record.group in groups and record.label is not None for record in index.records]
    parts = [
        tuple(record for record, is_locked in zip(index.records, inside, strict=True) if is_locked == wanted)
        for wanted in (False, True)
    ]
    return replace(index, records=parts[0]), replace(index, records=parts[1])


def leakage(groups: npt.NDArray[np.generic], train: Positions, test: Positions) -> Leakage:
    """What the test part shares with training. `groups`: of all images; positions of both parts."""
    shared = np.isin(groups[test], groups[train])
    images = int(shared.sum())
    return Leakage(len(set(groups[test][shared].tolist())), images, images / len(test) if len(test) else 0.0)


def subset(labels: Values, groups: Values, max_groups_per_class: int, seed: int) -> Positions:
    """Positions of all images of at most so many groups of each class, drawn by `seed`, sorted."""
    members: defaultdict[Hashable, list[int]] = defaultdict(list)
    for position, group in enumerate(groups):
        members[group].append(position)
    rng = np.random.Generator(np.random.Philox(seed))
    chosen: list[int] = []
    for _, found in sorted(_groups_by_class(list(labels), members).items()):
        for n in rng.permutation(len(found))[:max_groups_per_class]:
            chosen += members[found[n]]
    return np.array(sorted(chosen), dtype=np.int64)
