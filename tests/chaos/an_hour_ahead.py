"""`bgpanet` on a host whose wall clock is one hour ahead: `python -m tests.chaos.an_hour_ahead worker …`."""

import time

SECONDS = 3600
_time, _time_ns = time.time, time.time_ns
time.time = lambda: _time() + SECONDS
time.time_ns = lambda: _time_ns() + SECONDS * 1_000_000_000

if __name__ == "__main__":
    from services.cli import main

    main()
