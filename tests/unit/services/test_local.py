"""Parts of `bgpanet up`: which are started again."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from services.local import Part


def wait_until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("may_leave", "status", "said"),
    [(True, 0, "has left, as it was told"), (True, 1, "starting it again"), (False, 0, "starting it again")],
)
def test_a_worker_that_left_as_it_was_told_stays_away_and_nothing_else_does(
    tmp_path: Path, may_leave: bool, status: int, said: str
) -> None:
    command = [sys.executable, "-c", f"raise SystemExit({status})"]
    part = Part("worker-0", command, tmp_path / "log", {}, may_leave=may_leave)
    lines: list[str] = []
    part.start()
    first = part.process
    assert first is not None
    wait_until(lambda: first.poll() is not None)
    part.keep_going(lines.append)
    assert [said in line for line in lines] == [True]
    time.sleep(0.6)  # RESTART_DELAYS[0] and a little
    part.keep_going(lines.append)
    assert (part.process is None) == (said == "has left, as it was told")
    if part.process is not None:
        part.process.wait()
