from services.throttle import MOST_KNOWN, Throttle


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_so_many_at_once_and_then_at_the_rate() -> None:
    clock = Clock()
    throttle = Throttle(per_second=2, burst=3, clock=clock)
    assert [throttle.take("a") for _ in range(3)] == [0, 0, 0]
    assert throttle.take("a") == 0.5
    clock.now += 0.25
    assert throttle.take("a") == 0.25
    clock.now += 0.25
    assert throttle.take("a") == 0
    assert throttle.take("a") == 0.5


def test_asking_too_often_does_not_lengthen_the_wait() -> None:
    clock = Clock()
    throttle = Throttle(per_second=1, burst=1, clock=clock)
    throttle.take("a")
    assert {throttle.take("a") for _ in range(100)} == {1.0}


def test_a_bucket_is_never_fuller_than_full() -> None:
    clock = Clock()
    throttle = Throttle(per_second=10, burst=2, clock=clock)
    throttle.take("a")
    clock.now += 3600
    assert [throttle.take("a") == 0 for _ in range(3)] == [True, True, False]


def test_each_has_their_own() -> None:
    throttle = Throttle(per_second=1, burst=1, clock=Clock())
    assert (throttle.take("a"), throttle.take("b"), throttle.take("a")) == (0, 0, 1)


def test_what_is_known_has_an_end() -> None:
    throttle = Throttle(per_second=1, burst=1, clock=Clock())
    for number in range(MOST_KNOWN + 10):
        throttle.take(str(number))
    assert len(throttle._buckets) == MOST_KNOWN
