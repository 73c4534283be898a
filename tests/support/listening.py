"""The real API listening on loopback, and a line to it that a test breaks or fills with refusals."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from werkzeug.serving import make_server

Application = Callable[[dict[str, Any], Any], Any]


class Line:
    """Stands before an application: it answers the next requests in its place where a test said so, and counts.

    `cut` is given a path and the answer's body, and returns what arrives of it; ConnectionResetError breaks the line.
    """

    def __init__(self, application: Application) -> None:
        self.application = application
        self.asked: list[tuple[str, str]] = []
        self.refusals: list[tuple[str, list[tuple[str, str]]]] = []
        self.cut: Callable[[str, Iterator[bytes]], Iterator[bytes]] = lambda path, body: body

    def refuse(self, status: str, times: int = 1, **headers: str) -> None:
        """The next requests get this status."""
        given = [(name.replace("_", "-"), value) for name, value in headers.items()]
        self.refusals += [(status, given)] * times

    def __call__(self, environ: dict[str, Any], start: Any) -> Iterator[bytes]:
        self.asked.append((environ["REQUEST_METHOD"], environ["PATH_INFO"].removeprefix("/api/v1/")))
        if self.refusals:
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))  # else the line may break instead
            status, headers = self.refusals.pop(0)
            start(status, headers)
            yield b""
            return
        answer = self.application(environ, start)
        try:
            yield from self.cut(environ["PATH_INFO"], iter(answer))
        except ConnectionResetError:
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            raise
        finally:
            if hasattr(answer, "close"):
                answer.close()


@contextmanager
def listening(application: Application) -> Iterator[tuple[str, Line]]:
    """The address at which it listens, and the line before it."""
    line = Line(application)
    server = make_server("127.0.0.1", 0, line, threaded=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.port}", line
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
