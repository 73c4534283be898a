import uuid

from services.ids import new_id


def test_ids_are_uuid_version_7_that_sort_by_time() -> None:
    first, last = uuid.UUID(new_id()), None
    milliseconds = first.int >> 80
    while last is None or last.int >> 80 == milliseconds:
        last = uuid.UUID(new_id())
    assert (first.version, first.variant) == (7, uuid.RFC_4122)
    assert str(first) < str(last)


def test_ids_do_not_repeat() -> None:
    assert len({new_id() for _ in range(10_000)}) == 10_000
