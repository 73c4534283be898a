"""Colours of lines and bars: seen against their ground, and told apart by people who don't see all colours."""

import itertools
import re

import numpy as np
import pytest

from services import dashboard

# Machado, Oliveira, Fernandes 2009: what linear RGB becomes to whoever lacks one kind of cone altogether.
SEEN = {
    "all cones": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
WHITE = np.array([0.95047, 1.0, 1.08883])
LEAST_APART = 15  # in CIELAB; one just about sees 2


def _colours(scheme: str) -> dict[str, str]:
    assert dashboard.__file__ is not None
    with open(dashboard.__file__.replace("__init__.py", "static/style.css"), encoding="utf-8") as file:
        day, _, night = file.read().partition("@media (prefers-color-scheme: dark)")
    found = re.findall(r"--([\w-]+): (#[0-9a-f]{6});", day if scheme == "light" else night)
    return dict(reversed(found))  # the first one of a name


def _linear(colour: str) -> np.ndarray:
    """Linear RGB (3,) of a hexadecimal sRGB colour."""
    value = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def _lab(linear: np.ndarray) -> np.ndarray:
    """CIELAB (3,) of linear RGB."""
    t = XYZ @ np.clip(linear, 0, 1) / WHITE
    f = np.where(t > 0.008856, np.cbrt(t), 7.787 * t + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def _contrast(one: str, other: str) -> float:
    low, high = sorted(float(XYZ[1] @ _linear(colour)) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_line_stands_out_from_its_ground(scheme: str) -> None:
    """At least 3 to 1: WCAG 2.2, 1.4.11."""
    colours = _colours(scheme)
    found = {name: _contrast(colours[name], colours["surface"]) for name in colours if name.startswith("series-")}
    assert len(found) == 6
    assert {name: ratio for name, ratio in found.items() if ratio < 3} == {}


@pytest.mark.parametrize("eye", SEEN)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_lines_are_told_apart_by_every_eye(scheme: str, eye: str) -> None:
    colours = _colours(scheme)
    seen = {f"series-{n}": _lab(SEEN[eye] @ _linear(colours[f"series-{n}"])) for n in range(1, 7)}
    apart = {pair: np.linalg.norm(seen[pair[0]] - seen[pair[1]]) for pair in itertools.combinations(seen, 2)}
    assert {pair: distance for pair, distance in apart.items() if distance < LEAST_APART} == {}
