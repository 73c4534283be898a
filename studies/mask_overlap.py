"""How far explanations agree with expert masks of the lesion, for trained nets and for untrained ones.

`python studies/mask_overlap.py --masks DIR --images DIR BUNDLE…` prints a Markdown table. A BUNDLE is a training's
folder with `model.safetensors`, `model.json` and `predictions.parquet`: one for each fold. An image counts with the
net of the fold whose test part holds it, and with no other. Masks are `<image id>_expert.png`, white in the lesion;
images are `<image id>.jpg`. What the figures mean stands in `bgpanet/explanation/masks.py`.
"""

import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from PIL import Image
from torch import Tensor, nn

from bgpanet.bundles import ModelCard, load_bundle
from bgpanet.data.augmentation import normalise
from bgpanet.data.pixels import decode
from bgpanet.errors import BGPANetError, InvalidInput
from bgpanet.evaluation.predictions import PredictionTable
from bgpanet.explanation.attention import last_of_stages, views
from bgpanet.explanation.cam import grad_cam
from bgpanet.explanation.masks import Mean, Overlap, centred_disc, means, overlap
from bgpanet.explanation.overlay import resized
from bgpanet.models import BGPANet, build_model
from bgpanet.models.swin import STAGES

SUFFIX = "_expert.png"
UNTRAINED_SEED = 0xB6FA2E7
"""Of the untrained nets' weights; no training's own seed, which would give the weights that it began with."""


@dataclass(frozen=True)
class Fold:
    """A net, and the masked images of its test part with their lesions."""

    folder: Path
    model: nn.Module
    card: ModelCard
    image_ids: list[str]
    groups: list[str]


def read_folds(bundles: Sequence[Path], masked: set[str]) -> list[Fold]:
    """The nets with the masked images that they were tested on. Raises InvalidInput where folds share an image."""
    folds, seen = [], dict[str, Path]()
    for folder in bundles:
        model, card = load_bundle(folder)
        table = PredictionTable.read(folder / "predictions.parquet")
        tested = [(i, g) for i, g in zip(table.image_ids, table.groups, strict=True) if i in masked]
        if twice := sorted(image_id for image_id, _ in tested if image_id in seen):
            raise InvalidInput.one(str(folder), f"{seen[twice[0]]} tests {twice[0]} too; name one net a fold")
        seen.update(dict.fromkeys((image_id for image_id, _ in tested), folder))
        folds.append(Fold(folder, model.eval(), card, [i for i, _ in tested], [g for _, g in tested]))
    return folds


def explanations(model: nn.Module, name: str, images: Tensor, classes: Sequence[int]) -> dict[str, np.ndarray]:
    """All maps of some images, each (B, h, w), by their names."""
    maps = {"Grad-CAM": grad_cam(model, name, images, classes)}
    if name.startswith(("bgpanet", "swin_")):
        for stage in range(1, len(STAGES)):
            maps[f"Grad-CAM, stage {stage}"] = grad_cam(model, name, images, classes, stage)
    if isinstance(model, BGPANet):
        for view in last_of_stages(views(model, images)):
            if view.spatial is not None:
                maps[f"M_s, stage {view.stage}"] = view.spatial
            if view.received is not None:
                maps[f"attention received, stage {view.stage}"] = view.received
    return maps


def read_mask(path: Path) -> np.ndarray:
    """True inside the lesion, (H, W)."""
    with Image.open(path) as image:
        return np.asarray(image.convert("L")) > 127


def measure(fold: Fold, masks: Path, images: Path, batch: int) -> dict[tuple[str, str], list[Overlap]]:
    """The overlap of each masked image, by map and net: "trained", "untrained", and "" for the centred disc.

    Grad-CAM explains the class that the trained net predicts, in both nets.
    """
    torch.manual_seed(UNTRAINED_SEED)
    card, found = fold.card, defaultdict[tuple[str, str], list[Overlap]](list)
    nets = {"trained": fold.model}
    nets["untrained"] = build_model(card.model.name, len(card.classes), **card.model.options).eval()
    for start in range(0, len(fold.image_ids), batch):
        part = fold.image_ids[start : start + batch]
        shown = np.stack([decode((images / f"{i}.jpg").read_bytes(), card.image_size) for i in part])
        inside = [read_mask(masks / f"{i}{SUFFIX}") for i in part]
        inputs = normalise(torch.from_numpy(shown))
        with torch.no_grad():
            classes = fold.model(inputs).argmax(dim=1).tolist()
        for net, model in nets.items():
            for name, maps in explanations(model, card.model.name, inputs, classes).items():
                # The net saw the whole frame, its aspect not kept: so the map is stretched back over it.
                found[name, net] += [
                    overlap(resized(m, *mask.shape), mask) for m, mask in zip(maps, inside, strict=True)
                ]
        found["centred disc", ""] += [overlap(centred_disc(*mask.shape), mask) for mask in inside]
        print(f"{fold.folder}: {start + len(part)} of {len(fold.image_ids)} images", file=sys.stderr)
    return dict(found)


def table(found: dict[tuple[str, str], list[Overlap]], groups: list[str]) -> str:
    """Markdown: each map of trained and untrained nets, their difference, and the trained nets' to the disc."""
    lines = ["| map | net | energy | IoU | pointing |", "|---|---|---|---|---|"]
    disc = found["centred disc", ""]
    for name in dict.fromkeys(name for name, _ in found):
        if name == "centred disc":
            continue
        trained, untrained = found[name, "trained"], found[name, "untrained"]
        lines.append(_row(name, "trained", means(trained, groups)))
        lines.append(_row("", "untrained", means(untrained, groups)))
        lines.append(_row("", "trained - untrained", means(trained, groups, against=untrained), sign="+"))
        lines.append(_row("", "trained - centred disc", means(trained, groups, against=disc), sign="+"))
    lines.append(_row("centred disc", "none", means(disc, groups)))
    return "\n".join(lines)


def _row(name: str, net: str, figures: dict[str, Mean], sign: str = "") -> str:
    # Every map has an IoU; an empty one has no energy.
    cells = [_cell(figures[figure], figures["iou"].images, sign) for figure in ("energy", "iou", "pointing")]
    return f"| {' | '.join([name, net, *cells])} |"


def _cell(mean: Mean, images: int, sign: str) -> str:
    if mean.images == 0:
        return "-"
    fewer = f", n = {mean.images}" if mean.images < images else ""
    return f"{mean.mean:{sign}.3f} ({mean.low:{sign}.3f} to {mean.high:{sign}.3f}){fewer}"


def report(bundles: Sequence[Path], masks: Path, images: Path, batch: int = 10) -> str:
    """What was measured of what, and the table. Raises InvalidInput."""
    masked = {path.name.removesuffix(SUFFIX) for path in masks.glob(f"*{SUFFIX}")}
    folds = read_folds(bundles, masked)
    groups = [group for fold in folds for group in fold.groups]
    if len(set(groups)) < 2:
        raise InvalidInput.one(
            "bundles", f"tested {len(groups)} of {len(masked)} masked images; intervals need lesions"
        )
    found = defaultdict[tuple[str, str], list[Overlap]](list)
    for fold in folds:
        for key, overlaps in measure(fold, masks, images, batch).items():
            found[key] += overlaps
    names = ", ".join(dict.fromkeys(f"{fold.card.model.name} at {fold.card.image_size} pixels" for fold in folds))
    what = (
        f"{len(groups)} of {len(masked)} masked images, of {len(set(groups))} lesions, each with the net of the fold\n"
        f"that tested it ({names}; folds: {len(folds)}). Means over images, 95 % intervals by a bootstrap over lesions."
    )
    return f"{what}\n\n{table(found, groups)}"


def main(
    bundles: Annotated[list[Path], typer.Argument(help="folders of trainings, one a fold")],
    masks: Annotated[Path, typer.Option(help="folder of <image id>_expert.png")],
    images: Annotated[Path, typer.Option(help="folder of <image id>.jpg")],
    batch: Annotated[int, typer.Option(min=1, help="images at once")] = 10,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; default: all cores")] = None,
) -> None:
    """Print how far explanations of trained and untrained nets agree with expert masks."""
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        print(report(bundles, masks, images, batch))
    except BGPANetError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    typer.run(main)
