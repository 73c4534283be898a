"""What models exist, told without importing torch: the API validates against it and lists it.

`bgpanet.models.zoo` builds exactly these; a test holds the figures below equal to what it builds. Adding a model is
one line here and one there.
"""

from dataclasses import dataclass

from bgpanet.validation import unknown

BGPA_OPTIONS = ("placement", "window_size", "reduction", "embedding_ratio", "spatial_statistics", "branches")
WEIGHTS_URL = "https://download.pytorch.org/models/"
"""Where torchvision's weights are downloaded from, by their file names."""
_SWIN_B, _SWIN_S, _SWIN_T = "swin_b-68c6b09e.pth", "swin_s-5e29d889.pth", "swin_t-704ceda3.pth"


@dataclass(frozen=True)
class ModelEntry:
    """One model that can be trained.

    image_size: side of the square input in pixels that it is meant for; sizes: the least and the most that it takes.
    parameters: trainable ones with 7 classes, millions. gmac: multiply-adds of all products for one image of
    image_size, billions. options: what can be set. imagenet: file name of torchvision's ImageNet weights for it or its
    backbone, which ends with the beginning of its SHA-256; None: there are none. batch_norm: whether it normalises by
    the images that pass the device at once, so that with fewer at once it learns something else.
    """

    title: str
    image_size: int
    parameters: float
    gmac: float
    options: tuple[str, ...] = ()
    sizes: tuple[int, int] = (32, 1024)
    imagenet: str | None = None
    batch_norm: bool = False


MODELS: dict[str, ModelEntry] = {
    "bgpanet": ModelEntry("BGPANet on Swin-B", 224, 88.320, 15.662, options=BGPA_OPTIONS, imagenet=_SWIN_B),
    "bgpanet_s": ModelEntry("BGPANet on Swin-S", 224, 49.726, 8.875, options=BGPA_OPTIONS, imagenet=_SWIN_S),
    "bgpanet_t": ModelEntry("BGPANet on Swin-T", 224, 28.408, 4.625, options=BGPA_OPTIONS, imagenet=_SWIN_T),
    "bgpanet_micro": ModelEntry("BGPANet on Swin-micro", 64, 0.863, 0.013, options=BGPA_OPTIONS),
    "swin_b": ModelEntry("Swin-B", 224, 86.750, 15.430, imagenet=_SWIN_B),
    "swin_s": ModelEntry("Swin-S", 224, 48.843, 8.740, imagenet=_SWIN_S),
    "swin_t": ModelEntry("Swin-T", 224, 27.525, 4.490, imagenet=_SWIN_T),
    "swin_micro": ModelEntry("Swin-micro", 64, 0.806, 0.012),
    "swin_b_se": ModelEntry("Swin-B + SE", 224, 86.927, 15.430, imagenet=_SWIN_B),
    "swin_s_se": ModelEntry("Swin-S + SE", 224, 48.942, 8.740, imagenet=_SWIN_S),
    "swin_t_se": ModelEntry("Swin-T + SE", 224, 27.625, 4.490, imagenet=_SWIN_T),
    "swin_micro_se": ModelEntry("Swin-micro + SE", 64, 0.814, 0.012),
    "swin_b_cbam": ModelEntry("Swin-B + CBAM", 224, 86.927, 15.431, imagenet=_SWIN_B),
    "swin_s_cbam": ModelEntry("Swin-S + CBAM", 224, 48.943, 8.741, imagenet=_SWIN_S),
    "swin_t_cbam": ModelEntry("Swin-T + CBAM", 224, 27.625, 4.490, imagenet=_SWIN_T),
    "swin_micro_cbam": ModelEntry("Swin-micro + CBAM", 64, 0.814, 0.012),
    "resnet101": ModelEntry("ResNet-101", 224, 42.515, 7.799, imagenet="resnet101-cd907fc2.pth", batch_norm=True),
    "vgg16": ModelEntry("VGG-16", 224, 134.289, 15.466, imagenet="vgg16-397923af.pth"),
    "mobilenet_v3_small": ModelEntry(
        "MobileNetV3-S", 224, 1.525, 0.055, imagenet="mobilenet_v3_small-047dcff4.pth", batch_norm=True
    ),
    "mobilenet_v2": ModelEntry("MobileNetV2", 224, 2.233, 0.300, imagenet="mobilenet_v2-7ebf99e0.pth", batch_norm=True),
    "densenet121": ModelEntry("DenseNet-121", 224, 6.961, 2.833, imagenet="densenet121-a639ec97.pth", batch_norm=True),
    "vit_b_16": ModelEntry("ViT-B/16", 224, 85.804, 17.563, sizes=(224, 224), imagenet="vit_b_16-c867db91.pth"),
    "convnext_base": ModelEntry("ConvNeXt-B", 224, 87.574, 15.354, imagenet="convnext_base-6075fbad.pth"),
}

IMAGENET_FILES = frozenset(entry.imagenet for entry in MODELS.values() if entry.imagenet)

ABSENT: dict[str, str] = {
    "hornet_b": "neither torchvision nor timm carries HorNet, and what does is not kept for this version of torch",
}
"""Models of the article's tables that can't be built, and why."""


def unknown_model(name: str) -> str:
    """What is said of a name that is not in `MODELS`."""
    if name in ABSENT:
        return f"{name} is not available: {ABSENT[name]}"
    return unknown("model", name, [*MODELS])
