"""What models exist, told without importing torch: the API validates against it and lists it.

`bgpanet.models.zoo` builds exactly these; a test holds the figures below equal to what it builds. Adding a model is
one line here and one there.
"""

import difflib
from dataclasses import dataclass

BGPA_OPTIONS = ("placement", "window_size", "reduction", "embedding_ratio", "spatial_statistics", "branches")


@dataclass(frozen=True)
class ModelEntry:
    """One model that can be trained.

    image_size: side of the square input in pixels that it is meant for; sizes: the least and the most that it takes.
    parameters: trainable ones with 7 classes, millions. gmac: multiply-adds of all products for one image of
    image_size, billions. options: what can be set. imagenet: whether there are ImageNet weights for it.
    """

    title: str
    image_size: int
    parameters: float
    gmac: float
    options: tuple[str, ...] = ()
    sizes: tuple[int, int] = (32, 1024)
    imagenet: bool = True


MODELS: dict[str, ModelEntry] = {
    "bgpanet": ModelEntry("BGPANet on Swin-B", 224, 88.320, 15.662, options=BGPA_OPTIONS),
    "bgpanet_s": ModelEntry("BGPANet on Swin-S", 224, 49.726, 8.875, options=BGPA_OPTIONS),
    "bgpanet_t": ModelEntry("BGPANet on Swin-T", 224, 28.408, 4.625, options=BGPA_OPTIONS),
    "bgpanet_micro": ModelEntry("BGPANet on Swin-micro", 64, 0.863, 0.013, options=BGPA_OPTIONS, imagenet=False),
    "swin_b": ModelEntry("Swin-B", 224, 86.750, 15.430),
    "swin_s": ModelEntry("Swin-S", 224, 48.843, 8.740),
    "swin_t": ModelEntry("Swin-T", 224, 27.525, 4.490),
    "swin_micro": ModelEntry("Swin-micro", 64, 0.806, 0.012, imagenet=False),
    "swin_b_se": ModelEntry("Swin-B + SE", 224, 86.927, 15.430),
    "swin_s_se": ModelEntry("Swin-S + SE", 224, 48.942, 8.740),
    "swin_t_se": ModelEntry("Swin-T + SE", 224, 27.625, 4.490),
    "swin_micro_se": ModelEntry("Swin-micro + SE", 64, 0.814, 0.012, imagenet=False),
    "swin_b_cbam": ModelEntry("Swin-B + CBAM", 224, 86.927, 15.431),
    "swin_s_cbam": ModelEntry("Swin-S + CBAM", 224, 48.943, 8.741),
    "swin_t_cbam": ModelEntry("Swin-T + CBAM", 224, 27.625, 4.490),
    "swin_micro_cbam": ModelEntry("Swin-micro + CBAM", 64, 0.814, 0.012, imagenet=False),
    "resnet101": ModelEntry("ResNet-101", 224, 42.515, 7.799),
    "vgg16": ModelEntry("VGG-16", 224, 134.289, 15.466),
    "mobilenet_v3_small": ModelEntry("MobileNetV3-S", 224, 1.525, 0.055),
    "mobilenet_v2": ModelEntry("MobileNetV2", 224, 2.233, 0.300),
    "densenet121": ModelEntry("DenseNet-121", 224, 6.961, 2.833),
    "vit_b_16": ModelEntry("ViT-B/16", 224, 85.804, 17.563, sizes=(224, 224)),
    "convnext_base": ModelEntry("ConvNeXt-B", 224, 87.574, 15.354),
}

ABSENT: dict[str, str] = {
    "hornet_b": "neither torchvision nor timm carries HorNet, and what does is not kept for this version of torch",
}
"""Models of the article's tables that can't be built, and why."""


def unknown_model(name: str) -> str:
    """What is said of a name that is not in `MODELS`."""
    if name in ABSENT:
        return f"{name} is not available: {ABSENT[name]}"
    near = difflib.get_close_matches(name, MODELS, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"unknown model {name!r}{hint} Known: {', '.join(MODELS)}"
