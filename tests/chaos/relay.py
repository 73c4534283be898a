"""Relays between a worker and its services: they see where a request stands, and lose, spoil or delay it there.

A relay listens on a port of its own and passes everything on, until a trap is set or a disturbance begins. A trap is
sprung once, by the first request that it waits for; the request goes no further than the trap says, and what it names
(a kill, mostly) happens while the request is held.
"""

import asyncio
import contextlib
import re
import socket
import struct
import threading
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

PIECE = 65_536
HEAD_BYTES = 1 << 20  # of a request to S3, at most


@dataclass
class Trap:
    """Waits for a request. `at`: a statement begins so, or a commit closes a transaction that holds one; or a PUT.

    passes_on: whether the request still reaches the service, and only its answer is lost.
    """

    at: str
    passes_on: bool
    spring: Callable[[], None] = lambda: None
    sprung: threading.Event = field(default_factory=threading.Event)

    def go_off(self) -> None:
        self.spring()
        self.sprung.set()


class Loop(threading.Thread):
    """The event loop in which all relays work."""

    def __init__(self) -> None:
        super().__init__(name="relays", daemon=True)
        self._loop = asyncio.new_event_loop()
        self.servers: list[asyncio.Server] = []
        self.start()

    def run(self) -> None:
        self._loop.run_forever()

    def call(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def close(self) -> None:
        async def end() -> None:
            for server in self.servers:
                server.close()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        self.call(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self.join()
        self._loop.close()


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Relay:
    """One port in front of one service."""

    def __init__(self, loop: Loop, connect: Callable[[], Awaitable[Streams]]) -> None:
        self._connect = connect
        self._traps: list[Trap] = []
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        loop.servers.append(loop.call(self._listen()))

    def set(self, trap: Trap) -> Trap:
        self._traps.append(trap)
        return trap

    def clear(self) -> None:
        self._traps.clear()

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await self._connect()
        except OSError:
            writer.close()
            return
        pumps = [
            asyncio.ensure_future(self._forth(reader, far_writer, writer)),
            asyncio.ensure_future(self._back(far_reader, writer)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            for end in (writer, far_writer):
                end.transport.abort()

    async def _forth(self, reader: asyncio.StreamReader, far: asyncio.StreamWriter, near: asyncio.StreamWriter) -> None:
        raise NotImplementedError

    async def _back(self, far: asyncio.StreamReader, near: asyncio.StreamWriter) -> None:
        while piece := await far.read(PIECE):
            near.write(piece)
            await near.drain()

    async def _spring(self, trap: Trap) -> None:
        if trap in self._traps:
            self._traps.remove(trap)
        await asyncio.get_running_loop().run_in_executor(None, trap.go_off)


class SqlRelay(Relay):
    """In front of PostgreSQL (without TLS). Follows the statements of each transaction."""

    def __init__(self, loop: Loop, socket_path: str) -> None:
        super().__init__(loop, lambda: asyncio.open_unix_connection(socket_path))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.answer_lost = asyncio.Event()  # type: ignore[attr-defined]
        writer.trap = None  # type: ignore[attr-defined]
        await super()._serve(reader, writer)

    async def _forth(self, reader: asyncio.StreamReader, far: asyncio.StreamWriter, near: asyncio.StreamWriter) -> None:
        (size,) = struct.unpack("!I", head := await reader.readexactly(4))
        far.write(head + await reader.readexactly(size - 4))  # the only message without a type
        prepared: dict[bytes, str] = {}
        transaction: list[str] = []
        while True:
            head = await reader.readexactly(5)
            kind, size = head[:1], struct.unpack("!I", head[1:])[0]
            body = await reader.readexactly(size - 4)
            statement = _statement(kind, body, prepared)
            if statement is not None:
                trap = self._wanted(statement, transaction)
                if trap is not None and not trap.passes_on:
                    await self._spring(trap)
                    return
                near.trap = trap  # type: ignore[attr-defined]
                if statement in ("BEGIN", "COMMIT", "ROLLBACK"):
                    transaction.clear()
                else:
                    transaction.append(statement)
            far.write(head + body)
            await far.drain()

    async def _back(self, far: asyncio.StreamReader, near: asyncio.StreamWriter) -> None:
        while piece := await far.read(PIECE):
            trap: Trap | None = near.trap  # type: ignore[attr-defined]
            if trap is not None:
                await self._spring(trap)
                return
            near.write(piece)
            await near.drain()

    def _wanted(self, statement: str, transaction: list[str]) -> Trap | None:
        for trap in self._traps:
            if trap.passes_on:
                if statement == "COMMIT" and any(done.startswith(trap.at) for done in transaction):
                    return trap
            elif statement.startswith(trap.at):
                return trap
        return None


def _statement(kind: bytes, body: bytes, prepared: dict[bytes, str]) -> str | None:
    """What a message asks the database to do; None where it is part of another message's request."""
    if kind == b"Q":
        return body.rstrip(b"\0").decode("utf-8", "replace")
    if kind == b"P":
        name, text, _ = body.split(b"\0", 2)
        prepared[name] = text.decode("utf-8", "replace")
    elif kind == b"B":
        _, name, _ = body.split(b"\0", 2)
        return prepared.get(name, "")
    return None


class S3Relay(Relay):
    """In front of S3 (HTTP/1.1 without TLS). `disturbance`: None, `500`, `503`, `slow` or `cut`."""

    def __init__(self, loop: Loop, port: int) -> None:
        self.disturbance: str | None = None
        super().__init__(loop, lambda: asyncio.open_connection("127.0.0.1", port))

    async def _forth(self, reader: asyncio.StreamReader, far: asyncio.StreamWriter, near: asyncio.StreamWriter) -> None:
        while True:
            head = await _head(reader)
            sized = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
            size = int(sized.group(1)) if sized else 0
            if self.disturbance in ("500", "503"):
                name = {"500": "InternalError", "503": "SlowDown"}[self.disturbance]
                text = f"<Error><Code>{name}</Code><Message>chaos</Message></Error>"
                answer = f"HTTP/1.1 {self.disturbance} {name}\r\nContent-Length: {len(text)}\r\nConnection: close\r\n"
                near.write(f"{answer}Content-Type: application/xml\r\n\r\n{text}".encode())
                await near.drain()
                return
            if self.disturbance == "slow":
                await asyncio.sleep(1.0)
            far.write(head)
            await far.drain()
            trap = next((trap for trap in self._traps if head.startswith(b"PUT ") and trap.at.encode() in head), None)
            cut = self.disturbance == "cut"
            left = size // 2 if trap or cut else size
            while left and (piece := await reader.read(min(PIECE, left))):
                far.write(piece)
                await far.drain()
                left -= len(piece)
            if trap is not None:
                await self._spring(trap)
            if trap is not None or cut:
                return


async def _head(reader: asyncio.StreamReader) -> bytes:
    """A request's first line and headers. Raises asyncio.IncompleteReadError at the end."""
    with contextlib.suppress(asyncio.LimitOverrunError):
        return await reader.readuntil(b"\r\n\r\n")
    raise asyncio.IncompleteReadError(b"", HEAD_BYTES)
