"""A wire that can be disturbed: a proxy for whatever speaks over TCP and is not MySQL."""

import asyncio
import struct
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from socket import SO_LINGER, SOL_SOCKET

from deploy.stack import HOST

_AT_ONCE = struct.pack("ii", 1, 0)
_CHUNK = 2**16
_EVERY = 3


@dataclass(repr=False)
class Wire:
    """Passes everything on until it is told to disturb."""

    port: int
    """Where clients connect, on 127.0.0.1."""
    struck: int = 0
    """How many connections were reset, and how many chunks held up, since it was made."""
    _losing: bool = False
    _open: asyncio.Event = field(default_factory=asyncio.Event)
    _pairs: set[tuple[StreamWriter, StreamWriter]] = field(default_factory=set[tuple[StreamWriter, StreamWriter]])
    _replies: "count[int]" = field(default_factory=count)

    def __post_init__(self) -> None:
        self._open.set()

    def silence(self) -> None:
        """Let nothing pass until `heal`, which then lets everything pass that was sent meanwhile."""
        self._open.clear()

    def reset(self) -> None:
        """Reset every connection."""
        for pair in [*self._pairs]:
            self._reset(pair)

    def lose_replies(self) -> None:
        """Until `heal`: of the replies, lose every third and reset its connection. What was asked was carried out."""
        self._losing = True

    def heal(self) -> None:
        """Disturb nothing from now on."""
        self._losing = False
        self._open.set()

    async def serve(self, reader: StreamReader, writer: StreamWriter, server: tuple[str, int]) -> None:
        """Stand between a client and the server until either is gone."""
        try:
            await self._open.wait()
            server_reader, server_writer = await asyncio.open_connection(*server)
        except OSError:
            self._reset((writer, writer))
            return
        except asyncio.CancelledError:
            self._reset((writer, writer))
            raise
        pair = (writer, server_writer)
        self._pairs.add(pair)
        passing = [
            asyncio.create_task(self._pass(reader, server_writer, pair, replies=False)),
            asyncio.create_task(self._pass(server_reader, writer, pair, replies=True)),
        ]
        try:
            await asyncio.wait(passing, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._pairs.discard(pair)
            for task in passing:
                task.cancel()
            await asyncio.gather(*passing, return_exceptions=True)
            self._close(pair)

    async def _pass(
        self, source: StreamReader, sink: StreamWriter, pair: tuple[StreamWriter, StreamWriter], *, replies: bool
    ) -> None:
        with suppress(OSError):
            while chunk := await source.read(_CHUNK):
                if not self._open.is_set():
                    self.struck += 1
                    await self._open.wait()
                if replies and self._losing and next(self._replies) % _EVERY == 0:
                    self._reset(pair)
                    return
                sink.write(chunk)
                await sink.drain()

    def _reset(self, pair: tuple[StreamWriter, StreamWriter]) -> None:
        self.struck += 1
        for writer in pair:
            if not writer.transport.is_closing():
                writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, _AT_ONCE)
                writer.transport.abort()

    def _close(self, pair: tuple[StreamWriter, StreamWriter]) -> None:
        """One side ended: so does the other, after what is under way."""
        for writer in pair:
            writer.close()


@asynccontextmanager
async def running_wire(host: str, port: int, *, listen: int = 0) -> AsyncGenerator[Wire]:
    """A wire to a server, on a free port unless one is named; closes every connection in the end."""
    serving: set[asyncio.Task[None]] = set()

    def accept(reader: StreamReader, writer: StreamWriter) -> None:
        task = asyncio.create_task(wire.serve(reader, writer, (host, port)))
        serving.add(task)
        task.add_done_callback(serving.discard)

    listener = await asyncio.start_server(accept, HOST, listen)
    wire = Wire(listener.sockets[0].getsockname()[1])
    try:
        yield wire
    finally:
        listener.close()
        for task in [*serving]:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        await listener.wait_closed()
