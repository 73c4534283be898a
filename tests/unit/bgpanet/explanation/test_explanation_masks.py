"""Agreement of maps with masks: each figure against its definition, worked out by hand."""

import math

import numpy as np
import pytest

from bgpanet.errors import InvalidInput
from bgpanet.explanation.masks import Overlap, centred_disc, means, overlap


def square(size: int, start: int, side: int) -> np.ndarray:
    mask = np.zeros((size, size), dtype=bool)
    mask[start : start + side, start : start + side] = True
    return mask


def test_a_map_equal_to_the_mask_agrees_wholly() -> None:
    mask = square(10, 2, 5)
    assert overlap(mask.astype(np.float32), mask) == Overlap(energy=4.0, iou=1.0, pointing=1.0)


def test_a_map_outside_the_mask_does_not_agree_at_all() -> None:
    found = overlap(square(10, 7, 3), square(10, 2, 5))
    assert (found.energy, found.pointing) == (0, 0)
    # 9 of 25 places are taken outside; for the other 16 compete 91 zeros, 25 of them inside.
    assert found.iou == pytest.approx((16 * 25 / 91) / (50 - 16 * 25 / 91))


def test_a_constant_map_is_worth_what_chance_is() -> None:
    mask = square(10, 0, 5)  # a quarter
    found = overlap(np.full((10, 10), 0.3), mask)
    assert found.energy == pytest.approx(1)
    assert found.iou == pytest.approx(0.25 / 1.75)
    assert found.pointing == pytest.approx(0.25)


def test_each_figure_worked_out_by_hand() -> None:
    values = np.array([[0.0, 1.0, 5.0], [2.0, 4.0, 0.0]])
    mask = np.array([[False, True, True], [True, False, False]])
    found = overlap(values, mask)
    assert found.energy == pytest.approx((8 / 12) / (3 / 6))
    assert found.iou == pytest.approx(2 / 4)  # 5, 4, 2 of which 5 and 2 are inside
    assert found.pointing == 1


def test_equal_values_share_the_last_places() -> None:
    values = np.array([[3.0, 1.0, 1.0, 1.0, 0.0]])
    mask = np.array([[True, True, False, False, False]])
    # 3 is in; of the three 1s one is taken, and one of them is inside.
    assert overlap(values, mask).iou == pytest.approx((1 + 1 / 3) / (4 - (1 + 1 / 3)))


def test_the_scale_of_a_map_plays_no_part() -> None:
    rng = np.random.default_rng(0)
    values, mask = rng.random((12, 9)), rng.random((12, 9)) > 0.6
    one, other = overlap(values, mask), overlap(values * 1e-3, mask)
    assert (one.energy, one.iou, one.pointing) == pytest.approx((other.energy, other.iou, other.pointing))


def test_a_map_of_zeros_has_no_energy() -> None:
    assert math.isnan(overlap(np.zeros((4, 4)), square(4, 0, 2)).energy)


@pytest.mark.parametrize(
    ("values", "mask", "what"),
    [
        (np.ones((3, 3)), square(4, 0, 2), "must be of the mask's size"),
        (-np.ones((4, 4)), square(4, 0, 2), "0 and more"),
        (np.full((4, 4), np.nan), square(4, 0, 2), "finite"),
        (np.ones((4, 4)), np.zeros((4, 4)), "inside and outside"),
        (np.ones((4, 4)), np.ones((4, 4)), "inside and outside"),
    ],
)
def test_what_can_not_be_compared_is_refused(values: np.ndarray, mask: np.ndarray, what: str) -> None:
    with pytest.raises(InvalidInput, match=what):
        overlap(values, mask)


def test_a_centred_disc_is_largest_in_the_middle_and_symmetric() -> None:
    disc = centred_disc(6, 8)
    np.testing.assert_allclose(disc, disc[::-1, ::-1], atol=1e-6)
    assert disc[2:4, 3:5].min() == disc.max()
    assert 0 < disc[0, 0] == disc.min() < 0.25
    centred, aside = square(40, 14, 12), square(40, 1, 12)
    assert overlap(centred_disc(40, 40), centred).iou > 0.7
    assert overlap(centred_disc(40, 40), aside).iou < 0.2


def test_means_are_over_images_and_their_intervals_over_groups() -> None:
    rng = np.random.default_rng(0)
    lesions = rng.random(40)
    # Four images of each lesion that agree: 160 images hold no more than 40.
    overlaps = [Overlap(float(v), float(v), float(v > 0.5)) for v in np.repeat(lesions, 4)]
    groups = np.repeat([f"g{n}" for n in range(40)], 4).tolist()
    found = means(overlaps, groups)["iou"]
    assert found.mean == pytest.approx(lesions.mean())
    error = lesions.std() / math.sqrt(40)
    assert (found.high - found.low) == pytest.approx(2 * 1.96 * error, rel=0.15)
    as_if_independent = means(overlaps, [str(n) for n in range(160)])["iou"]
    assert (as_if_independent.high - as_if_independent.low) < 0.6 * (found.high - found.low)
    assert means(overlaps, groups) == means(overlaps, groups)


def test_a_difference_is_taken_image_by_image() -> None:
    rng = np.random.default_rng(0)
    first = [Overlap(float(v), float(v), 1.0) for v in rng.random(30)]
    second = [Overlap(one.energy - 0.1, one.iou - 0.1, 1.0) for one in first]
    groups = [str(n // 2) for n in range(30)]
    found = means(first, groups, against=second)
    assert (found["iou"].mean, found["iou"].low, found["iou"].high) == pytest.approx((0.1, 0.1, 0.1))
    assert (found["pointing"].low, found["pointing"].high) == (0, 0)


def test_images_without_a_figure_are_left_out_and_counted() -> None:
    overlaps = [Overlap(math.nan, 0.5, 0.0), Overlap(2.0, 0.5, 0.0), Overlap(4.0, 0.5, 0.0)]
    found = means(overlaps, ["a", "b", "c"])
    assert (found["energy"].mean, found["energy"].images, found["iou"].images) == (3.0, 2, 3)
    nothing = means([Overlap(math.nan, 0.5, 0.0)] * 2, ["a", "b"])["energy"]
    assert math.isnan(nothing.mean)
    assert nothing.images == 0


def test_means_that_can_not_be_had_are_refused() -> None:
    one = Overlap(1.0, 0.5, 0.0)
    with pytest.raises(InvalidInput, match="one for each of 2 images"):
        means([one, one], ["a"])
    with pytest.raises(InvalidInput, match="at least 2"):
        means([one, one], ["a", "a"])
