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


@pytest.mark.parametrize(
    ("database", "seconds", "signals"), [("answers", "0.1", "1"), ("hangs", "0.1", "1"), ("answers", "600", "2")]
)
def test_who_has_no_time_left_gives_back_what_it_can_and_is_gone(database: str, seconds: str, signals: str) -> None:
    command = [sys.executable, "-c", HANGS, database, seconds, signals]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "given back\n"), done.stderr


ASKED = """
import signal, sys
from services.worker.departure import Departure

heard = []
signal.signal(signal.SIGTERM, lambda *_: (heard.append(1), departure.ask()))
departure = Departure(grace_seconds=600)
if sys.argv[1] == "leaving":
    departure.ask()
for _ in range(3):
    departure.from_afar()
print(len(heard), departure.is_set())
"""


@pytest.mark.parametrize(("state", "told"), [("working", "1 True"), ("leaving", "0 True")])
def test_who_is_asked_from_afar_sends_itself_one_signal_and_none_when_it_leaves_already(state: str, told: str) -> None:
    """A second one would take all its time."""
    done = subprocess.run([sys.executable, "-c", ASKED, state], capture_output=True, text=True, check=True, timeout=240)
    assert done.stdout.strip() == told


LATE = """
import signal, sys, threading, time
from services.worker.departure import Departure

departure = Departure(grace_seconds=-2.9)
signal.signal(signal.SIGTERM, lambda *_: departure.ask())
threading.Thread(target=departure.watch, args=(lambda: None,), daemon=True).start()
departure.from_afar() if sys.argv[1] == "afar" else departure.ask()
time.sleep(600)
"""


@pytest.mark.parametrize(("asked", "status"), [("afar", 0), ("here", 1)])
def test_who_was_asked_from_afar_and_is_late_is_not_taken_for_dead(asked: str, status: int) -> None:
    done = subprocess.run([sys.executable, "-c", LATE, asked], capture_output=True, check=False, timeout=240)
    assert done.returncode == status
