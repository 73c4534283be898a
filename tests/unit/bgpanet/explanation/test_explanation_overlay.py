"""Maps over images, and PNG."""

import io

import numpy as np
from PIL import Image

from bgpanet.explanation.overlay import colours, overlay, png, resized


def test_where_a_map_is_zero_the_image_is_unchanged_and_elsewhere_it_takes_the_maps_colour() -> None:
    image = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    values = np.zeros((8, 12), dtype=np.float32)
    values[2, 3], values[5, 5] = 1.0, 0.5
    found = overlay(image, values)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(np.argwhere((found != image).any(axis=-1)), [[2, 3], [5, 5]])
    expected = 0.4 * image[2, 3] + 0.6 * colours(values)[2, 3]
    np.testing.assert_allclose(found[2, 3], expected, atol=1)


def test_larger_values_are_lighter() -> None:
    ramp = colours(np.linspace(0, 1, 64)[None]).astype(float) @ [0.2989, 0.587, 0.114]
    assert (np.diff(ramp[0]) > 0).all()


def test_a_coarse_map_is_spread_over_a_finer_image() -> None:
    coarse = np.array([[0.0, 1.0]], dtype=np.float32)
    fine = resized(coarse, 4, 8)
    assert fine.shape == (4, 8)
    assert (np.diff(fine, axis=1) >= 0).all()
    assert overlay(np.zeros((4, 8, 3), dtype=np.uint8), coarse).shape == (4, 8, 3)


def test_a_png_holds_the_image_and_is_the_same_for_the_same_image() -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    with Image.open(io.BytesIO(png(image))) as opened:
        np.testing.assert_array_equal(np.asarray(opened), image)
    assert png(image) == png(image.copy())
