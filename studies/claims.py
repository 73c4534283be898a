"""The article's claims, recomputed from its own tables and the published counts of the data sets.

`python studies/claims.py` prints one line a claim. What the article says is quoted by its numbers alone.
"""

from collections.abc import Iterator

from bgpanet.catalogue import MODELS

ISIC_IMAGES, ISIC_MALIGNANT = 33_126, 584
HAM_LARGEST, HAM_SMALLEST = 6_705, 115
# Accuracy, precision, recall, F1 of table 1 (HAM10000), per cent.
TABLE_1 = {
    "Swin": (92.50, 91.12, 84.37, 87.17),
    "CNN-ViT": (95.01, 94.70, 92.11, 93.34),
    "BGPANet": (97.87, 97.65, 97.18, 97.03),
}
# The same of table 2 (ISIC 2020), where all four are given.
TABLE_2 = {
    "ResNet101": (92.04, 93.75, 90.57, 90.82),
    "VGG16": (85.89, 77.51, 78.16, 77.82),
    "Swin": (90.24, 90.85, 81.72, 79.77),
    "DenseNet121": (95.30, 94.20, 93.80, 95.50),
    "BGPANet": (98.43, 99.13, 94.19, 93.85),
}
BGPANET_BMC = 61.32
CE_ALONE, FOCAL_ALONE = 96.20, 94.35


def sensitivity_and_specificity(accuracy: float, bmc: float, positives: int, images: int) -> tuple[float, float]:
    """The two rates of a binary classifier, from accuracy = (se P + sp N) / (P + N) and bmc = (se + sp) / 2."""
    negatives = images - positives
    sensitivity = (accuracy * images - 2 * bmc * negatives) / (positives - negatives)
    return sensitivity, 2 * bmc - sensitivity


def claims() -> Iterator[tuple[str, str]]:
    """(what the article says, what follows from its numbers)."""
    ours, swin, best = TABLE_1["BGPANet"], TABLE_1["Swin"], TABLE_1["CNN-ViT"]
    yield (
        "5.37 points of accuracy above the strongest baseline",
        f"{ours[0] - swin[0]:.2f} is the distance to Swin; to the strongest, CNN-ViT, it is {ours[0] - best[0]:.2f}",
    )
    yield (
        "5.44 points of BMC above the strongest baseline (HAM10000)",
        f"BMC is the macro recall; the recall column gives {ours[2] - best[2]:.2f} to CNN-ViT "
        f"and {ours[2] - swin[2]:.2f} to Swin",
    )
    yield (
        "3.52 points above the closest static weighting",
        f"{ours[0] - FOCAL_ALONE:.2f} is the distance to focal loss alone, the farthest; "
        f"cross-entropy alone is {ours[0] - CE_ALONE:.2f} below",
    )
    yield (
        "ISIC 2020 has an imbalance of 71:1",
        f"{ISIC_IMAGES - ISIC_MALIGNANT:,} benign to {ISIC_MALIGNANT} malignant images are "
        f"{(ISIC_IMAGES - ISIC_MALIGNANT) / ISIC_MALIGNANT:.1f}:1",
    )
    constant = 100 * (1 - ISIC_MALIGNANT / ISIC_IMAGES)
    below = [name for name, row in TABLE_2.items() if row[0] < constant]
    yield (
        "98.43 % accuracy on ISIC 2020",
        f"always saying benign scores {constant:.2f} %; {len(below)} of the {len(TABLE_2)} full rows stay below that",
    )
    se, sp = sensitivity_and_specificity(TABLE_2["BGPANet"][0] / 100, BGPANET_BMC / 100, ISIC_MALIGNANT, ISIC_IMAGES)
    found, alarms = se * ISIC_MALIGNANT, (1 - sp) * (ISIC_IMAGES - ISIC_MALIGNANT)
    yield (
        "99.13 % precision: extremely few false positives (ISIC 2020)",
        f"accuracy and BMC together give a sensitivity of {100 * se:.1f} %, a specificity of {100 * sp:.2f} %, "
        f"and so {found:.0f} melanomas found among {found + alarms:.0f} alarms: a precision of "
        f"{100 * found / (found + alarms):.0f} %",
    )
    yield (
        "94.19 % recall (ISIC 2020)",
        f"the macro recall is BMC, {BGPANET_BMC} %; the weighted recall is the accuracy, {TABLE_2['BGPANet'][0]} %",
    )
    precision, recall, f1 = TABLE_2["DenseNet121"][1:]
    yield (
        "DenseNet121: F1 95.50 % (ISIC 2020)",
        f"F1 is at most the mean of precision and recall, {(precision + recall) / 2:.2f} %, so {f1:.2f} % can't be",
    )
    yield (
        "MobileNetV3-S: 0.6 GFLOPs",
        f"{MODELS['mobilenet_v3_small'].gmac:.3f} GMAC at 224 x 224",
    )
    yield (
        "15.1, 15.5 and 7.5 GFLOPs (Swin, VGG16, ResNet101)",
        f"{MODELS['swin_b'].gmac:.2f}, {MODELS['vgg16'].gmac:.2f} and {MODELS['resnet101'].gmac:.2f} G "
        "multiply-accumulates; as floating-point operations they are twice that",
    )
    yield (
        "98.20 % of MobileNet-V2 and 98.30 % of CIFF-Net (ISIC 2020)",
        f"{98.20 - constant:+.2f} and {98.30 - constant:+.2f} points beside always saying benign",
    )
    yield (
        "the block alone takes 92.50 % to 96.20 %, the loss then to 97.87 %",
        f"{96.20 - swin[0]:.2f} and {ours[0] - 96.20:.2f} points; the second is the loss ablation's 96.20 % by "
        "cross-entropy: it holds",
    )
    yield ("HAM10000 has an imbalance of over 58:1", f"{HAM_LARGEST / HAM_SMALLEST:.1f}:1: it holds")
    yield ("0.95, 1.30 and 1.45 points of the three branches", f"add up to {0.95 + 1.30 + 1.45:.2f}, as said: it holds")


if __name__ == "__main__":
    for said, found in claims():
        print(f"{said}: {found}")
