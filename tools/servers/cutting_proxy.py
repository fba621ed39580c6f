"""A proxy before a Milvus server that fails like a network, by command or seed.

It reads the frames of HTTP/2 as they pass, so it knows where a request ends and its reply begins. That makes the nasty
case exact: the server has done the work and answered, and the client sees nothing but a broken connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal

LOOPBACK = "127.0.0.1"
PREFACE = 24  # bytes that a client sends before its first frame
HEADER = 9  # bytes before each frame's payload
DATA, HEADERS = 0, 1
END_STREAM = 1
POLL = 0.01  # seconds

Cut = Literal["in request", "before reply"]
CUTS: tuple[Cut, ...] = ("in request", "before reply")


@dataclass
class _Request:
    """One call: a stream of one connection.

    Args:
        sent: Bytes of it that the client has sent.
        cut: Its fault.
        at: For a cut in the request: number of bytes before it.
    """

    sent: int = 0
    cut: Cut | None = None
    at: int = 0


@dataclass(eq=False)
class _Connection:
    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    requests: dict[int, _Request] = field(default_factory=dict)


class CuttingProxy:
    """A proxy on a free port of the loopback, for as long as the ``with`` block lasts.

    Args:
        port: The server's port on the loopback; plain HTTP/2, no TLS.
        seed: Seed of what happens at random.
        chance: Chance of each large request to be cut, one way or the other.
        large: Bytes from which on a request counts as large: inserts are, most other calls are not.
        delay: Seconds that each reply is held back.

    Attributes:
        target: The server's port; another one from the next connection on.
        cuts: Number of cut connections, by kind.
        calls: Number of calls that reached the proxy.
    """

    def __init__(
        self, port: int, *, seed: int = 0, chance: float = 0.0, large: int = 20_000, delay: float = 0.0
    ) -> None:
        self.chance = chance
        self.large = large
        self.delay = delay
        self.cuts: Counter[str] = Counter()
        self.calls = 0
        self.target = port
        self._random = random.Random(seed)
        self._armed: list[Cut] = []
        self._stalled_until = 0.0
        self._held = False
        self._connections: set[_Connection] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._listener = socket.create_server((LOOPBACK, 0))

    @property
    def uri(self) -> str:
        """The address for ``MilvusClient(uri)``."""
        return f"http://{LOOPBACK}:{self._listener.getsockname()[1]}"

    def __enter__(self) -> CuttingProxy:
        self._thread.start()
        self._server = self._run(asyncio.start_server(self._serve, sock=self._listener))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def cut_next(self, *kinds: Cut) -> None:
        """Cut the next large requests, within the request or before the reply."""
        self._armed.extend(kinds)

    def disarm(self) -> None:
        """Cut none of the next requests after all."""
        self._armed.clear()

    def cut_now(self) -> None:
        """Reset all connections at once, whatever is under way."""

        async def cut() -> None:
            self._cut("on command")

        self._run(cut())

    def stall(self, seconds: float) -> None:
        """Pass nothing for so long, then everything that waited; 0 ends a stall."""
        self._stalled_until = time.monotonic() + seconds

    def hold(self) -> None:
        """Pass requests and keep their replies back until `release`."""
        self._held = True

    def release(self) -> None:
        """Pass the replies that were held, and go on."""
        self._held = False

    def _run(self, work):
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _close(self) -> None:
        self._server.close()
        for connection in list(self._connections):
            _reset(connection)
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _cut(self, kind: str) -> None:
        # all of them: what breaks between two machines breaks for every connection
        self.cuts[kind] += 1
        for connection in list(self._connections):
            _reset(connection)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server_reader, server_writer = await asyncio.open_connection(LOOPBACK, self.target)
        except OSError:  # the server is down: so is the proxy's side
            writer.transport.abort()
            return
        for end in (writer, server_writer):  # asyncio does it for the sockets alone that it makes itself
            end.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = _Connection(writer, server_writer)
        self._connections.add(connection)
        pumps = [
            asyncio.ensure_future(self._requests(connection, reader)),
            asyncio.ensure_future(self._replies(connection, server_reader)),
        ]
        try:
            with contextlib.suppress(asyncio.CancelledError):  # the proxy ends; asyncio would print a traceback
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            self._connections.discard(connection)
            for end in (writer, server_writer):
                end.close()

    async def _requests(self, connection: _Connection, reader: asyncio.StreamReader) -> None:
        connection.server.write(await reader.readexactly(PREFACE))
        while True:
            kind, flags, stream, frame = await _frame(reader)
            await self._wait()
            self.calls += kind == HEADERS
            if kind == DATA:
                request = connection.requests.setdefault(stream, _Request())
                before, request.sent = request.sent, request.sent + len(frame) - HEADER
                if before < self.large <= request.sent:
                    self._choose(request)
                if request.cut == "in request" and (request.sent >= request.at or flags & END_STREAM):
                    connection.server.write(frame[: self._random.randrange(len(frame))])
                    await connection.server.drain()
                    self._cut(request.cut)
                    return
            connection.server.write(frame)
            await connection.server.drain()

    def _choose(self, request: _Request) -> None:
        """Say what is to become of a request that has just turned out to be large."""
        if self._armed:
            request.cut = self._armed.pop(0)
        elif self._random.random() < self.chance:
            request.cut = self._random.choice(CUTS)
        request.at = self.large + self._random.randrange(1_000_000)

    async def _replies(self, connection: _Connection, reader: asyncio.StreamReader) -> None:
        while True:
            kind, flags, stream, frame = await _frame(reader)
            await self._wait()
            while self._held and kind in (DATA, HEADERS):
                await asyncio.sleep(POLL)
            request = connection.requests.get(stream)
            if kind == HEADERS:
                if self.delay:
                    await asyncio.sleep(self.delay)
                if request is not None and request.cut == "before reply":
                    self._cut(request.cut)
                    return
            if kind == HEADERS and flags & END_STREAM:
                connection.requests.pop(stream, None)
            connection.client.write(frame)
            await connection.client.drain()

    async def _wait(self) -> None:
        while time.monotonic() < self._stalled_until:
            await asyncio.sleep(POLL)


async def _frame(reader: asyncio.StreamReader) -> tuple[int, int, int, bytes]:
    """The next frame: its type, flags and stream, and all its bytes."""
    header = await reader.readexactly(HEADER)
    length, kind, flags, stream = int.from_bytes(header[:3], "big"), header[3], header[4], header[5:]
    return kind, flags, int.from_bytes(stream, "big") & 0x7FFFFFFF, header + await reader.readexactly(length)


def _reset(connection: _Connection) -> None:
    """End both halves with RST, as a broken network does, not with FIN."""
    for end in (connection.client, connection.server):
        peer = end.get_extra_info("socket")
        if peer is not None and peer.fileno() >= 0:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        end.transport.abort()
