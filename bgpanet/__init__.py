"""BGPANet: training, honest evaluation and batch inference of skin-lesion classifiers on one machine.

Importing this package imports no torch; `bgpanet.models`, `bgpanet.losses` and `bgpanet.training` do.
"""

__version__ = "0.1.0"
