import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bgpanet.data.batches import batches, epoch_order

PIXELS = np.arange(100, dtype=np.uint8).repeat(3).reshape(100, 1, 1, 3)
LABELS = np.arange(100) % 7


@given(st.integers(1, 100), st.integers(1, 40), st.integers(0, 5))
def test_an_epoch_shows_every_image_once_with_its_label(count: int, batch_size: int, epoch: int) -> None:
    order = epoch_order(np.arange(100)[:count], seed=3, epoch=epoch)
    seen: list[int] = []
    for step, chosen, images, labels in batches(PIXELS, LABELS, order, batch_size):
        assert len(chosen) == batch_size or step == (count - 1) // batch_size
        assert images[:, 0, 0, 0].tolist() == chosen.tolist()
        assert labels.tolist() == LABELS[chosen].tolist()
        seen += chosen.tolist()
    assert sorted(seen) == list(range(count))


@given(st.integers(0, 12))
def test_an_epoch_goes_on_where_it_was_left(first: int) -> None:
    order = epoch_order(np.arange(100), seed=0, epoch=1)
    whole = [(step, chosen.tolist()) for step, chosen, _, _ in batches(PIXELS, LABELS, order, 8)]
    rest = [(step, chosen.tolist()) for step, chosen, _, _ in batches(PIXELS, LABELS, order, 8, first_step=first)]
    assert rest == whole[first:]


def test_only_the_rows_asked_for_are_read_and_all_labels() -> None:
    order = epoch_order(np.arange(10), seed=0, epoch=0)
    found = list(batches(PIXELS, LABELS, order, 4, rows=lambda step, size: np.arange(step, size)))
    for step, chosen, images, labels in found:
        assert images[:, 0, 0, 0].tolist() == chosen[step:].tolist()
        assert labels.tolist() == LABELS[chosen].tolist()


def test_the_order_follows_from_seed_and_epoch() -> None:
    orders = {(seed, epoch): epoch_order(np.arange(100), seed, epoch).tolist() for seed in (0, 1) for epoch in (0, 1)}
    assert len({tuple(order) for order in orders.values()}) == 4
    assert epoch_order(np.arange(100), 1, 1).tolist() == orders[1, 1]
