"""P7: Pillow's decoding and resizing over ours on real images, and whether a net answers the same."""

import io
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.real_images import MISSING, originals, real_images, recompressed
from benchmarks.timing import Figure, Ratio, compare
from bgpanet.data.augmentation import augment, normalise
from bgpanet.data.pixels import decode
from bgpanet.data.readers import read
from bgpanet.models import build_model
from bgpanet.specs import AugmentationSpec

SIZE = 224
STEPS, BATCH = 24, 14


def measure() -> Iterator[tuple[str, Ratio | Figure | str]]:
    """(goal, what was measured or why it could not be)."""
    folder = real_images()
    if folder is None:
        yield "P7", MISSING
        return
    contents = [path.read_bytes() for path in originals(folder)]
    yield "P7", compare(
        f"CPU seconds of Pillow's decoding and resizing of {len(contents)} originals to {SIZE}",
        lambda: [_plainly(content) for content in contents],
        "of ours", lambda: [decode(content, SIZE) for content in contents], clock=time.process_time,
    )  # fmt: skip
    paths = originals(folder) + recompressed(folder)
    ours = np.stack([decode(path.read_bytes(), SIZE) for path in paths])
    theirs = np.stack([_plainly(path.read_bytes()) for path in paths])
    difference = np.abs(ours.astype(int) - theirs)
    yield "P7, pixels", Figure(f"mean difference of {len(paths)} images, of 255", float(difference.mean()))
    net = _fitted(folder, {path.stem for path in paths})
    with torch.inference_mode():
        answers = [torch.cat([net(normalise(torch.from_numpy(part))) for part in np.array_split(kind, 16)])
                   for kind in (ours, theirs)]  # fmt: skip
    same = (answers[0].argmax(1) == answers[1].argmax(1)).float().mean()
    classes = len(set(answers[0].argmax(1).tolist()))
    what = f"share of {len(paths)} images that a net of {STEPS} steps answers the same, with {classes} kinds of answers"
    yield "P7, answers", Figure(what, float(same))


def _plainly(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR))


def _fitted(folder: Path, unseen: set[str]) -> torch.nn.Module:
    """A small net that has learned a little, each class as often: one that knows nothing says the same to all."""
    index = read("ham10000", folder / "ham10000")
    rng = np.random.default_rng(0)
    known = np.array([n for n, record in enumerate(index.records) if record.image_id not in unseen])
    torch.manual_seed(0)
    net = build_model("bgpanet_micro", len(index.classes))
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    for step in range(STEPS):
        wanted = rng.integers(len(index.classes), size=BATCH)
        chosen = [rng.choice(known[index.labels[known] == label]) for label in wanted]
        pixels = np.stack([decode(index.records[n].read_bytes(), SIZE) for n in chosen])
        logits = net(augment(torch.from_numpy(pixels), AugmentationSpec(), 0, 0, step))
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits, torch.from_numpy(wanted)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return net.eval()
