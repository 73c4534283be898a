"""What models exist, told without importing torch: the API validates against it and lists it.

`bgpanet.models.zoo` builds exactly these; a test holds the figures below equal to what it builds. Adding a model is
one line here and one there.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelEntry:
    """One model that can be trained.

    image_size: side of the square input in pixels that it is meant for.
    parameters: number of trainable parameters with 7 classes, millions.
    blocks: whether it has BGPA blocks, and so takes their options.
    """

    title: str
    image_size: int
    parameters: float
    blocks: bool


MODELS: dict[str, ModelEntry] = {
    "bgpanet": ModelEntry("BGPANet on Swin-B", 224, 88.320, True),
    "bgpanet_s": ModelEntry("BGPANet on Swin-S", 224, 49.726, True),
    "bgpanet_t": ModelEntry("BGPANet on Swin-T", 224, 28.408, True),
    "bgpanet_micro": ModelEntry("BGPANet on a micro Swin, for CPUs", 64, 0.863, True),
    "swin_b": ModelEntry("Swin-B", 224, 86.750, False),
    "swin_s": ModelEntry("Swin-S", 224, 48.843, False),
    "swin_t": ModelEntry("Swin-T", 224, 27.525, False),
    "swin_micro": ModelEntry("a micro Swin, for CPUs", 64, 0.806, False),
}
