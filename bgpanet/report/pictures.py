"""The pictures of a report: test images out of the pixel cache, and where in them the net saw what it named."""

import base64
import io
from dataclasses import asdict

import numpy as np
import torch
from PIL import Image
from torch import nn

from bgpanet.data.augmentation import normalise
from bgpanet.evaluation.predictions import PredictionTable
from bgpanet.explanation.cam import grad_cam
from bgpanet.explanation.overlay import overlay
from bgpanet.report.gallery import Picture, answers, chosen

SIDE = 160  # pixels, at most
BATCH = 8
QUALITY = 80


def draw(
    model: nn.Module, name: str, pixels: np.ndarray, positions: np.ndarray, table: PredictionTable
) -> list[Picture]:
    """What `chosen` names of a test part, with the Grad-CAM map of the class that the net named.

    name: the model's, in the zoo. pixels: uint8 (N, S, S, 3); positions: (n,), of the table's rows in them.
    """
    rows = chosen(table)
    found = answers(table)
    predicted = table.probabilities.argmax(axis=1)
    device = next(model.parameters()).device
    model.eval()
    pictures = []
    for start in range(0, len(rows), BATCH):
        part = rows[start : start + BATCH]
        images = np.ascontiguousarray(pixels[positions[part]])
        batch = normalise(torch.from_numpy(images).to(device))
        maps = grad_cam(model, name, batch, predicted[part].tolist())
        for row, image, heat in zip(part, images, maps, strict=True):
            answer = found[row]
            assert answer is not None  # noqa: S101 - it was chosen among those that are known
            pictures.append(Picture(**asdict(answer), image=_jpeg(image), overlay=_jpeg(overlay(image, heat))))
    return pictures


def _jpeg(image: np.ndarray) -> str:
    """Made anew from the pixels, so nothing else of the original file can be in it."""
    picture = Image.fromarray(np.ascontiguousarray(image))
    picture.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=QUALITY)
    return base64.b64encode(file.getvalue()).decode()
