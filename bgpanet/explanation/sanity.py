"""Does a map depend on what the network learned (Adebayo et al., NeurIPS 2018)?

A map that stays the same when weights become random shows the image's edges, not the network's reasons.
"""

from collections.abc import Callable, Sequence

import numpy as np
from torch import nn

from bgpanet.explanation.overlay import resized
from bgpanet.models.zoo import BUILDERS

SIDE = 32
"""Positions of a side at which maps are compared; enlarging them further adds no ranks."""

Explain = Callable[[nn.Module], np.ndarray]


def parts_of(name: str) -> dict[str, tuple[str, ...]]:
    """What is made random of a model of the zoo, one after the other from the answer downwards: parts by their name,
    each as the beginnings of names of weights."""
    built = BUILDERS[name]
    middle = {"classifier and blocks": (built.head, *built.new)} if built.new else {}
    return {"classifier": (built.head,), **middle, "all weights": ("",)}


def weight_randomisation(
    model: nn.Module, fresh: nn.Module, beginnings: Sequence[str], explain: Explain
) -> list[float | None]:
    """How alike the maps of the same images are before and after weights become random: `rank_correlations`.

    fresh: a network of the same architecture with random weights; of these, all whose names begin with one of
    `beginnings` are taken, running statistics included. explain: the (B, H, W) maps of a network, for classes that do
    not depend on it. The model is put back as it was.
    """
    before = explain(model)
    learned = {name: value.detach().clone() for name, value in model.state_dict().items()}
    random = {name: value for name, value in fresh.state_dict().items() if name.startswith(tuple(beginnings))}
    try:
        model.load_state_dict({**learned, **random})
        return rank_correlations(before, explain(model))
    finally:
        model.load_state_dict(learned)


def rank_correlations(first_BHW: np.ndarray, second_BHW: np.ndarray) -> list[float | None]:  # noqa: N803
    """Spearman's rank correlation of each pair of maps over 32 x 32 positions; None where one is the same
    everywhere."""
    from scipy.stats import spearmanr

    found: list[float | None] = []
    for first, second in zip(first_BHW, second_BHW, strict=True):
        one, other = resized(first, SIDE, SIDE).ravel(), resized(second, SIDE, SIDE).ravel()
        is_flat = np.ptp(one) == 0 or np.ptp(other) == 0
        found.append(None if is_flat else float(spearmanr(one, other).statistic))
    return found
