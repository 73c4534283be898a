"""The fork server and its children, seen from the worker. Its protocol stands in `bgpanet/forkserver.py`."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bgpanet.events import Failure, parse_event


class ForkServerGone(Exception):
    """The fork server died; its children died with it."""


@dataclass(frozen=True)
class Request:
    """What the child is to run; see `bgpanet.runner.Run`."""

    kind: str
    spec: Path
    output: Path
    cache: Path
    threads: int
    cache_limit: int | None = None


@dataclass(frozen=True)
class Child:
    """A running child. `events` and `text` are descriptors to read from, closed by `close`."""

    pid: int
    events: int
    text: int

    def signal(self, number: int) -> None:
        """Sends a signal to the child and all that it started; nothing where they have ended."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def close(self) -> None:
        os.close(self.events)
        os.close(self.text)


class ForkServer:
    """One fork server; started at once, ready after seconds, started anew when it was lost."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = {**os.environ, **environment}
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False
        self._lines = b""
        self._spawn()

    def _spawn(self) -> None:
        self.channel, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - our own module
                [sys.executable, "-m", "bgpanet.forkserver", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=self.environment,
                start_new_session=True,  # a Ctrl-C in the terminal is for the worker, which stops children in order
            )
        self._lines, self._ready = b"", False

    def start(self, request: Request, timeout: float = 120.0) -> Child:
        """Starts a child; a fork server that has died meanwhile is started anew, once. Raises ForkServerGone."""
        try:
            return self._start(request, time.monotonic() + timeout)
        except (ForkServerGone, OSError):
            self.restart()
        try:
            return self._start(request, time.monotonic() + timeout)
        except (ForkServerGone, OSError) as error:
            self.restart()
            raise ForkServerGone(str(error) or "the fork server did not answer") from error

    def restart(self) -> None:
        """Ends what is left of the fork server and its children, and starts a new one; none once it was closed."""
        self._end()
        if self._closed:
            raise ForkServerGone("the fork server was closed")
        self._spawn()

    def check(self, timeout: float) -> str | None:
        """Has a child try the device. Returns what is wrong; None: it computes. Raises ForkServerGone."""
        deadline = time.monotonic() + timeout
        try:
            child = self._send({"check": {}}, deadline)
            try:
                while (message := self.receive(deadline - time.monotonic())).get("ended") != child.pid:
                    pass
                os.set_blocking(child.events, False)  # what it started may hold its end
                said = _read(child.events)
            finally:
                child.signal(signal.SIGKILL)
                child.close()
        except (ForkServerGone, OSError) as error:
            self.restart()
            raise ForkServerGone(str(error) or "the fork server did not answer") from error
        if message["status"] == 0:
            return None
        failures = [event.message for event in map(parse_event, said.splitlines()) if isinstance(event, Failure)]
        return failures[0] if failures else f"the child that tried it ended with status {message['status']}"

    @property
    def has_message(self) -> bool:
        """Whether a message was read that nobody has received yet; the channel then does not become readable."""
        return b"\n" in self._lines

    def _start(self, request: Request, deadline: float) -> Child:
        paths = {name: str(getattr(request, name)) for name in ("spec", "output", "cache")}
        limits = {"threads": request.threads, "cache_limit": request.cache_limit}
        return self._send({"start": {"kind": request.kind, **limits, **paths}}, deadline)

    def _send(self, message: Mapping[str, Any], deadline: float) -> Child:
        while not self._ready:
            self._ready = bool(self.receive(deadline - time.monotonic()).get("ready"))
        events, their_events = os.pipe()
        text, their_text = os.pipe()
        try:
            socket.send_fds(self.channel, [json.dumps(message).encode()], [their_events, their_text])
            while "started" not in (answer := self.receive(deadline - time.monotonic())):
                pass
        except BaseException:
            os.close(events)
            os.close(text)
            raise
        finally:
            os.close(their_events)
            os.close(their_text)
        return Child(int(answer["started"]), events, text)

    def receive(self, timeout: float) -> dict[str, Any]:
        """The next message. Raises ForkServerGone where it is gone, or silent for `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while b"\n" not in self._lines:
            self.channel.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                part = self.channel.recv(65_536)
            except TimeoutError:
                raise ForkServerGone(f"the fork server was silent for {timeout:.0f} s") from None
            if not part:
                raise ForkServerGone("the fork server ended")
            self._lines += part
        line, _, self._lines = self._lines.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message

    def close(self) -> None:
        """Ends the fork server and its children, for good. Whoever waits for an answer gets ForkServerGone."""
        self._closed = True
        with contextlib.suppress(OSError):
            self.channel.shutdown(socket.SHUT_RDWR)
        self._end()

    def _end(self) -> None:
        self.channel.close()
        process = self._process
        if process is None:
            return
        try:
            process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _read(descriptor: int) -> bytes:
    said = b""
    with contextlib.suppress(BlockingIOError):
        while part := os.read(descriptor, 65_536):
            said += part
    return said
