"""Trained models that answer together: the folds of a cross-validation, or one model as an ensemble of one.

The answer is the mean of the members' probabilities (Lakshminarayanan et al. 2017, section 2.4). How far they disagree
is the mutual information between answer and member, I = H(mean of p) - mean of H(p), in nats, where H is the entropy:
0 where all say the same, at most ln K (Houlsby et al. 2011, equation 2).
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from bgpanet.bundles import CARD, ModelCard, load_bundle, load_card
from bgpanet.errors import InvalidInput
from bgpanet.inference import softmax


class Ensemble(nn.Module):
    """Members of the same classes and input. Maps (B, 3, H, W) to logits (B, M, K)."""

    def __init__(self, members: list[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, images: Tensor) -> Tensor:
        return torch.stack([member(images).float() for member in self.members], dim=1)


def load_models(folder: Path) -> tuple[Ensemble, list[ModelCard]]:
    """The model in a folder; or those in `fold-0`, `fold-1`, … of a cross-validation's, in that order.

    Raises:
        InvalidInput: there is none, one can't be read, or they differ in classes or size of image.
    """
    loaded = [load_bundle(path) for path in _members(folder)]
    return Ensemble([model for model, _ in loaded]), load_cards(folder)


def load_cards(folder: Path) -> list[ModelCard]:
    """The cards of the same models, whose weights need not be there. Raises InvalidInput as `load_models`."""
    cards = [load_card(path) for path in _members(folder)]
    if len({(card.classes, card.image_size) for card in cards}) > 1:
        raise InvalidInput.one(str(folder), "holds models of different classes or sizes of image")
    return cards


def _members(folder: Path) -> list[Path]:
    if (folder / CARD).exists():
        return [folder]
    return sorted(folder.glob("fold-*"), key=lambda path: int(path.name.removeprefix("fold-"))) or [folder]


def answers(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (B, K) and disagreement (B,), nats, of the members' logits (B, M, K)."""
    p = np.stack([softmax(logits[:, member]) for member in range(logits.shape[1])], axis=1)
    mean = p.mean(axis=1)
    return mean, np.maximum(_entropy(mean) - _entropy(p).mean(axis=1), 0.0)


def _entropy(p: np.ndarray) -> np.ndarray:
    """-sum p ln p over the last axis, where 0 ln 0 is 0."""
    return np.asarray(-np.sum(p * np.log(np.where(p > 0, p, 1.0)), axis=-1))
