"""Training: the loop, the learning rate, checkpoints, the device."""

from bgpanet.training.fit import fit, train_step

__all__ = ["fit", "train_step"]
