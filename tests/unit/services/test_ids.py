import time
import uuid

from services.ids import new_id


def test_ids_are_uuid_version_7_of_their_millisecond() -> None:
    before = time.time_ns() // 1_000_000
    made = uuid.UUID(new_id())
    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert before <= made.int >> 80 <= time.time_ns() // 1_000_000 + 1


def test_ids_ascend_also_within_a_millisecond() -> None:
    made = [new_id() for _ in range(10_000)]
    assert made == sorted(set(made))
