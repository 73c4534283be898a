"""One readable picture of an image and its maps: captioned tiles, side by side."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from bgpanet.explanation.overlay import overlay

TILE, GAP, CAPTION = 256, 8, 22
"""Pixels: side of a tile, space between tiles, height of the line above each."""


@dataclass(frozen=True)
class Tile:
    """A square picture, (TILE, TILE, 3) uint8, and the line above it."""

    caption: str
    picture: np.ndarray


def map_tile(caption: str, picture: np.ndarray, map_HW: np.ndarray) -> Tile:  # noqa: N803
    """A map over a picture, its colours from the map's least to its largest value, which the caption tells."""
    least, most = float(map_HW.min()), float(map_HW.max())
    spread = np.zeros_like(map_HW) if most == least else (map_HW - least) / (most - least)
    return Tile(f"{caption}, {least:.2f} to {most:.2f}", overlay(picture, spread))


def panel(columns: Sequence[Sequence[Tile]]) -> np.ndarray:
    """The tiles, column beside column, as (H, W, 3) uint8 on white."""
    rows = max(len(column) for column in columns)
    width, height = len(columns) * (TILE + GAP) + GAP, rows * (CAPTION + TILE + GAP) + GAP
    sheet = Image.new("RGB", (width, height), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for number, column in enumerate(columns):
        for row, tile in enumerate(column):
            x, y = GAP + number * (TILE + GAP), GAP + row * (CAPTION + TILE + GAP)
            draw.text((x, y), tile.caption, fill="black", font=font)
            sheet.paste(Image.fromarray(tile.picture), (x, y + CAPTION))
    return np.asarray(sheet)
