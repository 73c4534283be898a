"""Which ImageNet weights this host can have: those in torch's cache, and all others if their host can be reached."""

import os
import threading
import urllib.request
from pathlib import Path

from bgpanet.catalogue import IMAGENET_FILES, WEIGHTS_URL
from services.fleet import Weights

SMALLEST = "mobilenet_v3_small-047dcff4.pth"
TIMEOUT_SECONDS = 5.0
ASK_AGAIN_SECONDS = 1800.0


class Lookout:
    """Looks into the cache whenever it is asked, and asks the host by a thread of its own: at once, and seldom again.

    offline: the host is never asked, and counts as out of reach.
    """

    def __init__(self, offline: bool) -> None:
        self._reachable: bool | None = False if offline else None
        self._leaving = threading.Event()
        if not offline:
            threading.Thread(target=self._ask, name="weights", daemon=True).start()

    def __call__(self) -> Weights:
        """What the host can have now, without waiting for anything."""
        folder = cache_folder()
        files = sorted(name for name in IMAGENET_FILES if (folder / name).is_file())
        return Weights(str(folder), files, self._reachable)

    def close(self) -> None:
        """Asks no more."""
        self._leaving.set()

    def _ask(self) -> None:
        while not self._leaving.is_set():
            self._reachable = answers(WEIGHTS_URL + SMALLEST)
            self._leaving.wait(ASK_AGAIN_SECONDS)


def cache_folder() -> Path:
    """Where torch keeps downloaded weights, and looks for them first; the rule is that of `torch.hub.get_dir`."""
    home = os.environ.get("TORCH_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "torch"
    return Path(home).expanduser() / "hub" / "checkpoints"


def answers(url: str) -> bool:
    """Whether something is at an address; asked through the same proxies as a download, in a few seconds."""
    try:
        request = urllib.request.Request(url, method="HEAD")  # noqa: S310 - our own address
        with urllib.request.build_opener().open(request, timeout=TIMEOUT_SECONDS):
            return True
    except (OSError, ValueError):  # URLError, HTTPError and time-outs are OSErrors
        return False
