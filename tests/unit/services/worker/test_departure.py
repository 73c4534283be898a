"""A worker leaves in time, whatever hangs."""

import subprocess
import sys

import pytest

HANGS = """
import threading, sys, time
from services.worker.departure import Departure

def give_back():
    print("given back", flush=True)
    if sys.argv[1] == "hangs":
        time.sleep(600)

departure = Departure(grace_seconds=float(sys.argv[2]) - 3)
threading.Thread(target=departure.watch, args=(give_back,), daemon=True).start()
assert not departure.is_set()
for _ in range(int(sys.argv[3])):
    departure.ask()
assert departure.is_set()
time.sleep(600)
"""


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("database", "seconds", "signals"), [("answers", "0.1", "1"), ("hangs", "0.1", "1"), ("answers", "600", "2")]
)
def test_who_has_no_time_left_gives_back_what_it_can_and_is_gone(database: str, seconds: str, signals: str) -> None:
    command = [sys.executable, "-c", HANGS, database, seconds, signals]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "given back\n"), done.stderr
