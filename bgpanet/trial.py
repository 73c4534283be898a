"""A trained model tried on a few images, which answers with probabilities and, on request, what it looked at."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from bgpanet.compute import choose_compute
from bgpanet.data.augmentation import normalise
from bgpanet.data.pixels import decode
from bgpanet.ensemble import answers, load_models
from bgpanet.errors import InvalidInput
from bgpanet.events import Result
from bgpanet.experiment import Workplace
from bgpanet.explanation.overlay import overlay, png
from bgpanet.inference import infer_batches
from bgpanet.specs import TrialSpec

LARGEST_OVERLAY = 512
"""Side, pixels."""


def try_out(spec: TrialSpec, place: Workplace) -> dict[str, Any]:
    """Answers for every image that can be read; the others have an error. Returns the summary, also reported as
    `Result`: `images` in the order of the spec's. Overlays are `overlay-<number>.png`, of the class `explained`.

    Raises:
        InvalidInput: the model can't be read, has no such class, or is several of which none can be shown alone.
        OutOfMemory.
    """
    members, cards = load_models(Path(spec.model))
    card = cards[0]
    if spec.explained is not None and spec.explained not in card.classes:
        raise InvalidInput.one("explained", f"{spec.explained!r} is none of {', '.join(card.classes)}")
    if spec.overlays and len(cards) > 1:
        raise InvalidInput.one("overlays", f"are of one network, and these are {len(cards)} that answer together")
    compute = choose_compute("fp32", place.threads)
    compute.activate()
    rows: list[dict[str, Any]] = []
    pixels: list[np.ndarray] = []
    readable: list[int] = []
    for number, image in enumerate(spec.images):
        row: dict[str, Any] = {"name": image.name, "error": None, "predicted": None, "probabilities": None}
        row |= {"explained": None, "overlay": None}
        rows.append(row)
        try:
            pixels.append(decode(Path(image.file).read_bytes(), card.image_size))
            readable.append(number)
        except ValueError as error:
            row["error"] = f"can't be read: {error}"
    if pixels:
        members = members.to(compute.device)
        images = torch.from_numpy(np.stack(pixels)).to(compute.device)
        ((_, logits),) = infer_batches(members, [(None, images)], compute)
        probabilities, disagreement = answers(logits)
        for at, number in enumerate(readable):
            rows[number]["predicted"] = card.classes[int(probabilities[at].argmax())]
            rows[number]["probabilities"] = dict(zip(card.classes, probabilities[at].tolist(), strict=True))
            if len(cards) > 1:
                rows[number]["disagreement"] = float(disagreement[at])
        if spec.overlays:
            classes = probabilities.argmax(axis=1)
            if spec.explained is not None:
                classes = np.full(len(readable), card.classes.index(spec.explained))
            _draw(spec, place, members.members[0], card.model.name, images, classes, rows, readable, card.classes)
    summary = {
        "images": rows,
        "classes": list(card.classes),
        "members": len(cards),
        "synthetic": any(card.synthetic for card in cards),
    }
    place.report(Result(summary=summary))
    return summary


def _draw(
    spec: TrialSpec,
    place: Workplace,
    model: torch.nn.Module,
    name: str,
    images: torch.Tensor,
    classes: np.ndarray,
    rows: list[dict[str, Any]],
    readable: list[int],
    names: tuple[str, ...],
) -> None:
    """Grad-CAM of each image over the image, at its own size where that is small."""
    from bgpanet.explanation.cam import grad_cam

    place.output.mkdir(parents=True, exist_ok=True)
    cams = grad_cam(model, name, normalise(images), classes.tolist())
    for at, number in enumerate(readable):
        side = min(LARGEST_OVERLAY, max(224, images.shape[1]))
        picture = decode(Path(spec.images[number].file).read_bytes(), side)
        path = place.output / f"overlay-{number}.png"
        path.write_bytes(png(overlay(picture, cams[at])))
        place.hand_in(path)
        rows[number] |= {"explained": names[int(classes[at])], "overlay": path.name}
