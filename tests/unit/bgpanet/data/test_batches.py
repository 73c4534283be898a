import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bgpanet.data.batches import batches, epoch_order, on_device

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


def test_one_item_is_taken_ahead_while_the_caller_works_and_no_more() -> None:
    taken: list[int] = []
    second = threading.Event()

    def source() -> Iterator[tuple[int, tuple[torch.Tensor, ...]]]:
        for number in range(4):
            taken.append(number)
            if number == 1:
                second.set()
            yield number, (torch.tensor([number]),)

    items = on_device(source(), torch.device("cpu"))
    assert next(items) == (0, (torch.tensor([0]),))
    assert second.wait(60)
    assert taken == [0, 1]
    assert [number for number, _ in items] == [1, 2, 3]


def test_what_goes_wrong_ahead_is_told_when_its_turn_comes() -> None:
    def source() -> Iterator[tuple[int, tuple[torch.Tensor, ...]]]:
        yield 0, (torch.zeros(1),)
        raise OSError("the disk is gone")

    items = on_device(source(), torch.device("cpu"))
    assert next(items)[0] == 0
    with pytest.raises(OSError, match="the disk is gone"):
        next(items)


def test_who_stops_early_leaves_no_thread_behind() -> None:
    before = set(threading.enumerate())
    feed = batches(PIXELS, LABELS, np.arange(100), 8)
    next(feed)
    del feed
    assert set(threading.enumerate()) <= before
