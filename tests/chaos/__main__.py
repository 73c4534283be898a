"""`make chaos`: a long drill.

python -m tests.chaos --database postgresql --kills 1000 --seed 0
"""

import argparse
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.chaos.drill import Drill, Pace
from tests.chaos.faults import FAULTS
from tests.chaos.report import listed, replay, table, write


def main() -> int:
    """0: nothing was lost, doubled or stale, and every result had the bits of an undisturbed one."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Faults injected into the product.")
    parser.add_argument("--database", choices=("postgresql", "sqlite"), default="sqlite")
    parser.add_argument("--kills", type=int, default=1000, help="of processes, in all")
    parser.add_argument("--seed", type=int, default=0, help="of the load and of the faults")
    parser.add_argument("--minutes", type=float, default=120, help="after which no more faults are injected")
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--pause", type=float, default=1.0, help="seconds between two faults, on average")
    parser.add_argument("--only", action="append", default=[], metavar="FAULT", help=", ".join(f.name for f in FAULTS))
    parser.add_argument("--json", type=Path, help="where to write everything")
    parser.add_argument("--verbose", action="store_true", help="tell every fault")
    parser.add_argument("--folder", type=Path, help="keep logs and data there")
    asked = parser.parse_args()
    if strange := set(asked.only) - {fault.name for fault in FAULTS}:
        parser.error(f"there is no fault {', '.join(sorted(strange))}")
    pace = Pace(
        kills=asked.kills,
        between_seconds=asked.pause,
        minutes=asked.minutes,
        workers=asked.workers,
        only=tuple(asked.only),
        first=() if asked.only else None,
    )
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # whatever ends it, the product's processes end with it
    begun = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - begun:6.0f} s] {text}", flush=True)

    with tempfile.TemporaryDirectory(prefix="chaos-", ignore_cleanup_errors=True) as temporary:
        folder = asked.folder or Path(temporary)
        folder.mkdir(0o700, parents=True, exist_ok=True)
        drill = Drill(asked.database, asked.seed, pace, folder, say)
        drill.verbose = asked.verbose
        try:
            outcome = drill.run()
        except BaseException:
            print(listed(drill.injected))
            raise
        print(table(outcome, pace.lease_seconds))
        if asked.json is not None:
            write(outcome, asked.json)
        if outcome.findings.all:
            print(replay(outcome))
    return 1 if outcome.findings.all else 0


if __name__ == "__main__":
    sys.exit(main())
