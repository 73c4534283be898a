"""A drawn lesion set for demonstrations and tests, in HAM10000's layout. It is no medical data and says so.

Each lesion is a shape with an irregular border, colours and structures that dermoscopists name for its class, on skin
with hairs; each of its one to three images is another view of it (turned, shifted, nearer, other light). Classes
overlap, as the real ones do.
"""

import csv
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from bgpanet.data.readers.files import SYNTHETIC_MARKER
from bgpanet.data.readers.ham10000 import CLASSES, COLUMNS, FOLDERS, METADATA

NOTICE = "These images were drawn by a program. They show no patient and are no medical data.\n"
IMBALANCE = 60  # images of nv for one of df, as in HAM10000
SHARES = {"akiec": 0.04, "bcc": 0.065, "bkl": 0.115, "df": 0.014, "mel": 0.125, "vasc": 0.02}
LEAST = 4  # lesions of a class
HEIGHT, WIDTH = 96, 128

Progress = Callable[[int, int], None]
Colour = tuple[float, float, float]
Image3 = np.ndarray  # (H, W, 3) float in [0, 1]


@dataclass(frozen=True)
class Look:
    """What is typical of a class. Lengths are in half image heights, amounts in [0, 1].

    radius, irregularity: of the border; softness: width of its edge; colours: at the centre and at the rim;
    network: brown lines; veil: blue-white area; dots, lacunae, speckles: dark, red and white spots; scar: white centre.
    """

    radius: float
    irregularity: float
    softness: float
    centre: Colour
    rim: Colour
    network: float = 0.0
    veil: float = 0.0
    dots: int = 0
    lacunae: int = 0
    speckles: int = 0
    scar: float = 0.0


LOOKS = {
    "akiec": Look(0.55, 0.16, 0.22, (0.80, 0.52, 0.47), (0.83, 0.60, 0.54), speckles=16, dots=3),
    "bcc": Look(0.50, 0.14, 0.12, (0.78, 0.60, 0.58), (0.74, 0.50, 0.50), lacunae=3, dots=5, veil=0.25),
    "bkl": Look(0.58, 0.08, 0.05, (0.62, 0.46, 0.34), (0.55, 0.40, 0.30), network=0.35, speckles=8),
    "df": Look(0.38, 0.05, 0.16, (0.72, 0.54, 0.44), (0.60, 0.42, 0.34), network=0.20, scar=0.9),
    "mel": Look(0.66, 0.24, 0.06, (0.28, 0.19, 0.18), (0.46, 0.31, 0.24), network=0.50, veil=0.6, dots=9),
    "nv": Look(0.50, 0.07, 0.08, (0.44, 0.29, 0.21), (0.58, 0.41, 0.31), network=0.45, dots=3),
    "vasc": Look(0.42, 0.08, 0.05, (0.60, 0.16, 0.20), (0.70, 0.28, 0.30), lacunae=9),
}


def draw(folder: Path, lesions: int = 480, seed: int = 0, progress: Progress | None = None) -> None:
    """Writes about so many lesions (fewer than 4 of a class: 4) with their table. The same seed, the same pixels.

    From the default size on, nv has 60 images for each of df.
    """
    rng = np.random.default_rng(seed)
    plan = list(_plan(lesions, rng))
    for name in FOLDERS:
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / SYNTHETIC_MARKER).write_text(NOTICE, encoding="utf-8")
    with (folder / METADATA).open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        table.writeheader()
        for number, (lesion, dx, views) in enumerate(plan):
            person = {"age": str(5 * int(rng.integers(4, 17))), "sex": ("female", "male")[rng.integers(2)]}
            place = ("back", "face", "lower extremity", "trunk")[rng.integers(4)]
            for view, image in enumerate(_lesion(dx, views, rng)):
                image_id = f"SYN_{number:05d}{view}"
                half = FOLDERS[0] if number < len(plan) // 2 else FOLDERS[1]
                _save(image, folder / half / f"{image_id}.jpg")
                row = {"lesion_id": lesion, "image_id": image_id, "dx": dx, "dx_type": "drawn", "localization": place}
                table.writerow({**row, **person})
            if progress is not None:
                progress(number + 1, len(plan))


def draw_unlabelled(folder: Path, count: int, seed: int, broken: int = 0) -> None:
    """Writes `count` images of other lesions for prediction, and `broken` files more that are cut off half-way.

    `truth.csv` tells the classes that were drawn.
    """
    rng = np.random.default_rng([seed, 1])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SYNTHETIC_MARKER).write_text(NOTICE, encoding="utf-8")
    with (folder / "truth.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["image_id", "dx"])
        for number in range(count + broken):
            dx = CLASSES[number % len(CLASSES)]
            path = folder / f"NEW_{number:04d}.jpg"
            _save(next(_lesion(dx, 1, rng)), path)
            table.writerow([path.stem, dx])
            if number >= count:
                path.write_bytes(path.read_bytes()[:1000])


def _plan(lesions: int, rng: np.random.Generator) -> Iterator[tuple[str, str, int]]:
    """(lesion id, class, number of views) of every lesion, classes mixed."""
    counts = {dx: max(LEAST, round(share * lesions)) for dx, share in SHARES.items()}
    views = [(dx, 1 if dx == "df" else _views(rng)) for dx, count in counts.items() for _ in range(count)]
    wanted = IMBALANCE * counts["df"] if lesions >= 480 else lesions - sum(counts.values())
    nevi = 0
    while nevi < wanted or nevi < LEAST:
        more = min(_views(rng), max(1, wanted - nevi))
        views.append(("nv", more))
        nevi += more
    for number, position in enumerate(rng.permutation(len(views))):
        dx, several = views[position]
        yield f"SYNLES_{number:05d}", dx, several


def _views(rng: np.random.Generator) -> int:
    return int(rng.choice([1, 2, 3], p=[0.65, 0.25, 0.10]))


# ── Drawing ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _lesion(dx: str, views: int, rng: np.random.Generator) -> Iterator[Image3]:
    """Views of one lesion."""
    look = _individual(LOOKS[dx], rng)
    shape_seed = int(rng.integers(2**32))
    for _ in range(views):
        turn, zoom = rng.uniform(0, 2 * math.pi), rng.uniform(0.85, 1.2)
        y, x = _grid(turn, zoom, rng.uniform(-0.12, 0.12, 2))
        image = _draw_lesion(look, x, y, np.random.default_rng(shape_seed))
        image = _hairs(image, int(rng.poisson(1.5)), rng)
        light = rng.uniform(0.88, 1.12) * (1 + rng.uniform(-0.03, 0.03, 3))
        image = image * light * _vignette() + rng.normal(0, 0.012, image.shape)
        yield image.clip(0, 1)


def _individual(look: Look, rng: np.random.Generator) -> Look:
    """One lesion of a class: no two look the same, and some look like another class."""

    def tinted(colour: Colour) -> Colour:
        red, green, blue = np.asarray(colour) * rng.uniform(0.82, 1.2) + rng.normal(0, 0.035, 3)
        return float(red), float(green), float(blue)

    return replace(
        look,
        radius=look.radius * rng.uniform(0.65, 1.3),
        irregularity=look.irregularity * rng.uniform(0.4, 1.9),
        softness=look.softness * rng.uniform(0.6, 1.8),
        centre=tinted(look.centre),
        rim=tinted(look.rim),
        network=look.network * rng.uniform(0.2, 1.5),
        veil=look.veil * rng.uniform(0, 1.3),
        dots=int(rng.poisson(look.dots)),
        lacunae=int(rng.poisson(look.lacunae)),
        speckles=int(rng.poisson(look.speckles)),
        scar=look.scar * rng.uniform(0.3, 1.0),
    )


def _grid(turn: float, zoom: float, shift: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates on the lesion of every pixel, (H, W) each: half an image height is 1."""
    y, x = np.meshgrid(np.linspace(-1, 1, HEIGHT), np.linspace(-WIDTH / HEIGHT, WIDTH / HEIGHT, WIDTH), indexing="ij")
    y, x = (y - shift[0]) / zoom, (x - shift[1]) / zoom
    return x * math.sin(turn) + y * math.cos(turn), x * math.cos(turn) - y * math.sin(turn)


def _draw_lesion(look: Look, x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> Image3:
    skin = np.array([0.86, 0.68, 0.59]) * rng.uniform(0.85, 1.08) + rng.normal(0, 0.02, 3)
    image = skin + 0.02 * _texture(x, y, rng, 4.0)[..., None]
    inside, depth = _border(look, x, y, rng)
    blend = depth[..., None] ** 0.8
    colour = np.asarray(look.centre) * blend + np.asarray(look.rim) * (1 - blend)
    colour = colour * (1 + 0.16 * _texture(x, y, rng, 3.0)[..., None])
    lines = np.abs(_texture(x, y, rng, 16.0)) < 0.28
    colour = colour * (1 - 0.35 * look.network * lines[..., None])
    image = _over(image, colour, inside)
    if look.veil:
        image = _over(image, np.array([0.52, 0.56, 0.66]), inside * look.veil * _spot(x, y, look.radius, 0.3, rng))
    for count, tone, size in (
        (look.dots, np.array([0.20, 0.14, 0.14]), 0.035),
        (look.lacunae, np.array([0.55, 0.10, 0.16]), 0.11),
        (look.speckles, np.array([0.95, 0.90, 0.85]), 0.035),
    ):
        for _ in range(count):
            image = _over(image, tone, 0.85 * inside * _spot(x, y, look.radius, size * rng.uniform(0.6, 1.5), rng))
    if look.scar:
        image = _over(
            image, np.array([0.93, 0.84, 0.80]), look.scar * np.exp(-(x**2 + y**2) / (0.35 * look.radius) ** 2)
        )
    return image


def _border(look: Look, x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """How much of each pixel is lesion, and how deep inside it is (0 at the border, 1 at the centre)."""
    angle, distance = np.arctan2(y, x), np.hypot(x, y * rng.uniform(1.0, 1.35))
    waves = sum(rng.normal(0, 1 / k) * np.cos(k * angle + rng.uniform(0, 2 * math.pi)) for k in range(2, 9))
    radius = look.radius * (1 + look.irregularity * waves)
    softness = max(0.02, look.softness * look.radius)
    return 1 / (1 + np.exp((distance - radius) / (0.35 * softness))), (1 - distance / radius).clip(0, 1)


def _texture(x: np.ndarray, y: np.ndarray, rng: np.random.Generator, frequency: float) -> np.ndarray:
    """A field of mean 0 and deviation about 1: waves of one length in random directions."""
    total = np.zeros_like(x)
    for _ in range(7):
        direction, phase = rng.uniform(0, 2 * math.pi, 2)
        pace = frequency * rng.uniform(0.7, 1.4)
        total += np.cos(pace * (x * math.cos(direction) + y * math.sin(direction)) + phase)
    return total / math.sqrt(3.5)


def _spot(x: np.ndarray, y: np.ndarray, reach: float, size: float, rng: np.random.Generator) -> np.ndarray:
    """A soft round spot somewhere within `reach` of the centre."""
    angle, distance = rng.uniform(0, 2 * math.pi), reach * math.sqrt(rng.uniform(0, 0.8))
    return np.asarray(
        np.exp(-((x - distance * math.cos(angle)) ** 2 + (y - distance * math.sin(angle)) ** 2) / size**2)
    )


def _over(image: Image3, colour: np.ndarray, opacity: np.ndarray) -> Image3:
    return np.asarray(image + (colour - image) * opacity.clip(0, 1)[..., None])


def _hairs(image: Image3, count: int, rng: np.random.Generator) -> Image3:
    y, x = np.meshgrid(np.arange(HEIGHT), np.arange(WIDTH), indexing="ij")
    for _ in range(count):
        slope, bend = rng.uniform(-1.2, 1.2), rng.uniform(-0.004, 0.004)
        middle = rng.uniform(0.1, 0.9) * HEIGHT
        distance = np.abs(y - (middle + slope * (x - WIDTH / 2) + bend * (x - WIDTH / 2) ** 2))
        image = _over(image, np.array([0.25, 0.18, 0.14]), 0.75 * (distance < rng.uniform(0.6, 1.4)))
    return image


def _vignette() -> np.ndarray:
    y, x = np.meshgrid(np.linspace(-1, 1, HEIGHT), np.linspace(-1, 1, WIDTH), indexing="ij")
    return np.asarray(1 - 0.12 * (x**2 + y**2))[..., None]


def _save(image: Image3, path: Path) -> None:
    Image.fromarray((image * 255).round().astype(np.uint8)).save(path, quality=88)
