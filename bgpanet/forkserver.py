"""Starts runs in milliseconds: a process that has imported torch, and forks.

It is started as `python -m bgpanet.forkserver DESCRIPTOR`, with one end of a Unix stream socket. Importing torch takes
seconds, and CUDA does not survive a fork; so it imports, touches no device, and forks a child for each run.

    → {"start": {"kind", "spec", "output", "cache", "threads", "cache_limit"}}
                                        with two descriptors: for events, for text output
    → {"check": {}}                     with the same: a child that tries the device, and ends with 0 if it computes
    ← {"ready": true}                   once everything is imported
    ← {"started": pid}
    ← {"ended": pid, "status": n}       n: exit status, or minus the number of the signal that ended it

When its peer goes away it kills its children and leaves, so no run outlives its worker.
"""

import contextlib
import gc
import json
import os
import selectors
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from bgpanet.events import pipe_report
from bgpanet.runner import FAILED, Run, end_with, execute, start_together


def serve(channel: socket.socket) -> None:
    """Serves until the peer closes its end."""
    # For the children; the first two make pages, and take seconds to import.
    import pytorch_grad_cam  # noqa: F401

    import bgpanet.explain
    import bgpanet.prediction
    import bgpanet.selftest
    import bgpanet.study  # noqa: F401

    gc.freeze()  # what is imported stays shared with the children
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # the worker decides; its end closes the channel
    children: set[int] = set()
    selector = selectors.DefaultSelector()
    selector.register(channel, selectors.EVENT_READ)
    selector.register(wake_read, selectors.EVENT_READ)
    _send(channel, {"ready": True})
    while True:
        ready = {key.fd for key, _ in selector.select()}
        if wake_read in ready:
            os.read(wake_read, 4096)
            _reap(channel, children)
        if channel.fileno() in ready:
            message, descriptors, _, _ = socket.recv_fds(channel, 65_536, 2)
            if not message:
                break
            children.add(_fork(channel, json.loads(message), descriptors, (wake_read, wake_write)))
    for child in children:
        os.kill(child, signal.SIGKILL)


def _fork(channel: socket.socket, message: dict[str, Any], descriptors: list[int], own: tuple[int, int]) -> int:
    parent = os.getpid()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT})
        os.setpgid(pid, pid)  # here and in the child: whoever comes first, a signal to the group finds it
        for descriptor in descriptors:
            os.close(descriptor)
        _send(channel, {"started": pid})
        return pid
    status = FAILED
    try:
        channel.close()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for descriptor in own:
            os.close(descriptor)
        end_with(parent)
        events, text = descriptors
        os.setpgid(0, 0)
        os.dup2(text, 1)
        os.dup2(text, 2)
        os.close(text)
        status = _work(message, events)
    finally:
        # Never back into the server's loop, whatever happened; what was printed is flushed first.
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _work(message: dict[str, Any], events: int) -> int:
    if "check" in message:
        from bgpanet.selftest import check_device

        return check_device(pipe_report(events))
    run = _run(message["start"])
    # torchrun hands its processes no descriptor; by this name they open the pipe themselves (Linux).
    status = start_together(run, Path(f"/proc/{os.getpid()}/fd/{events}"))
    if status is None:
        return execute(run, pipe_report(events))
    if status < 0:  # one of them was killed: the worker is told as if it had been this process
        with contextlib.suppress(OSError):  # SIGKILL has no handler that could be taken back
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    return status


def _run(request: dict[str, Any]) -> Run:
    paths = {name: Path(request[name]) for name in ("spec", "output", "cache")}
    return Run(kind=request["kind"], threads=request["threads"], cache_limit=request.get("cache_limit"), **paths)


def _reap(channel: socket.socket, children: set[int]) -> None:
    for child in list(children):
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            children.discard(pid)
            _send(channel, {"ended": pid, "status": os.waitstatus_to_exitcode(status)})


def _send(channel: socket.socket, message: dict[str, Any]) -> None:
    with contextlib.suppress(BrokenPipeError):
        channel.sendall(json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
