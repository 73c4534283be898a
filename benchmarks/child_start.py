"""P10: from the order to the child's first word on a warm worker, over a fresh interpreter's."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.timing import Ratio, compare
from services.worker.child import ForkServer, Request


def measure() -> Iterator[tuple[str, Ratio | str]]:
    """(goal, what was measured)."""
    server = ForkServer({})
    with tempfile.TemporaryDirectory() as name:
        spec = Path(name) / "spec.json"
        spec.write_text('{"model": "nothing"}', encoding="utf-8")  # is refused at once: only the start is timed
        request = Request("train", spec, Path(name) / "output", Path(name) / "cache", threads=1)

        def forked() -> None:
            child = server.start(request)
            while os.read(child.events, 65_536):
                pass
            server.receive(60)
            child.close()

        def fresh() -> None:
            imports = "import bgpanet.experiment, bgpanet.prediction"
            subprocess.run([sys.executable, "-c", imports], check=True)  # noqa: S603 - our own interpreter

        try:
            yield "P10, start of a child", compare("a child of the fork server", forked, "a fresh interpreter", fresh)
        finally:
            server.close()
