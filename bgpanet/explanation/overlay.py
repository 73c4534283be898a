"""Maps drawn over images, and images as PNG."""

import io

import numpy as np
from PIL import Image

OPACITY = 0.6
"""Of the largest value; of 0 the colour is not seen at all."""


def colours(map_HW: np.ndarray) -> np.ndarray:  # noqa: N803
    """A map of values in [0, 1] as (H, W, 3) uint8: dark violet over red to pale yellow (matplotlib's inferno)."""
    from matplotlib import colormaps

    return np.asarray(colormaps["inferno"](map_HW.clip(0, 1), bytes=True)[..., :3])


def overlay(image_HW3: np.ndarray, map_HW: np.ndarray) -> np.ndarray:  # noqa: N803
    """The map's colours over the image, (H, W, 3) uint8: the larger a value, the more its colour covers.

    image: (H, W, 3) uint8. map: values in [0, 1]; enlarged linearly where it is of another size than the image.
    """
    values = resized(map_HW, image_HW3.shape[0], image_HW3.shape[1]).clip(0, 1)
    opacity = OPACITY * values[..., None]
    mixed = image_HW3 * (1 - opacity) + colours(values) * opacity
    return np.asarray(mixed.round().astype(np.uint8))


def resized(map_HW: np.ndarray, height: int, width: int) -> np.ndarray:  # noqa: N803
    """A map at another size, float32, linearly between positions."""
    whole = np.ascontiguousarray(map_HW, dtype=np.float32)
    if whole.shape == (height, width):
        return whole
    return np.asarray(Image.fromarray(whole).resize((width, height), Image.Resampling.BILINEAR))


def png(image: np.ndarray) -> bytes:
    """A PNG file of (H, W, 3) or (H, W) uint8; the same bytes for the same image."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, format="PNG")
    return file.getvalue()
