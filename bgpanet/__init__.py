"""BGPANet: training, honest evaluation and batch inference of skin-lesion classifiers on one machine.

Importing this package imports no torch; `bgpanet.models`, `bgpanet.losses` and `bgpanet.training` do.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("bgpanet-service")
except PackageNotFoundError:  # the sources alone, which nobody has installed
    __version__ = "0.1.dev0"
