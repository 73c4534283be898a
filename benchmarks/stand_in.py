"""A fork server whose children sleep instead of computing: `python -m benchmarks.stand_in DESCRIPTOR SECONDS`.

It speaks the protocol of `bgpanet/forkserver.py`, one child at a time, which is all that a slot ever wants.
"""

import json
import os
import socket
import sys
import time

from bgpanet.events import Result, Started, pipe_report


def serve(channel: socket.socket, seconds: float) -> None:
    """Serves until the peer closes its end."""
    send(channel, {"ready": True})
    while True:
        message, descriptors, _, _ = socket.recv_fds(channel, 65_536, 2)
        if not message:
            return
        child = os.fork()
        if not child:
            os.setpgid(0, 0)
            if "check" in json.loads(message):
                os._exit(0)  # a self-test of the slot
            report = pipe_report(descriptors[0])
            report(Started(step=0))
            time.sleep(seconds)
            report(Result(summary={}))
            os._exit(0)
        for descriptor in descriptors:
            os.close(descriptor)
        send(channel, {"started": child})
        _, status = os.waitpid(child, 0)
        send(channel, {"ended": child, "status": os.waitstatus_to_exitcode(status)})


def send(channel: socket.socket, message: dict[str, object]) -> None:
    """Sends one message, a line."""
    channel.sendall(json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])), float(sys.argv[2]))
