"""Training: the loop, the learning rate, checkpoints, the device."""

from bgpanet.training.fit import fit
from bgpanet.training.step import train_step

__all__ = ["fit", "train_step"]
