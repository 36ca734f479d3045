"""A proxy on the MySQL wire that knows where statements begin and replies end, and can disturb them.

For plain connections (no TLS, no compression). It reads just enough of the protocol: each packet has a length of 3
bytes and a sequence number, and a client's packet with the number 0 is a command.
"""

import asyncio
import struct
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from socket import SO_LINGER, SOL_SOCKET

from deploy.stack import HOST
from services.shared.database import Database

PING = "(ping)"
_QUERY, _PING = 0x03, 0x0E
_OK, _EOF, _ERROR = 0x00, 0xFE, 0xFF
_EOF_LIMIT = 9  # a longer packet that begins like an EOF is a row
_AT_ONCE = struct.pack("ii", 1, 0)
_WRITING = ("INSERT", "UPDATE", "DELETE")


class Fault(Enum):
    """What can happen to a statement."""

    RESET_BEFORE = auto()
    """Its connection is reset before it reaches the server."""
    REPLY_LOST = auto()
    """The server carries it out and replies; the connection is reset instead of the client being given the reply."""
    ALL_RESET_BEFORE = auto()
    """Every connection is reset before it reaches the server."""
    SILENT_BEFORE = auto()
    """It never reaches the server, and from then on nothing passes on any connection."""
    SILENT_AFTER = auto()
    """It reaches the server, and from then on nothing passes on any connection, not even its reply."""


@dataclass(frozen=True)
class Statement:
    """A statement that a client sent: a query's text, or `PING`."""

    number: int
    """Counted from 1 over all connections, since `Proxy.count`."""
    text: str
    commits: bool
    """Whether it commits something that its connection wrote."""


@dataclass(repr=False)
class Proxy:
    """Passes everything on until it is told to disturb."""

    host: str
    port: int
    """Where clients connect."""
    statements: list[str] = field(default_factory=list[str])
    """What was sent since `count`."""
    struck: int = 0
    """How many statements were disturbed since `count`."""
    latency: float = 0.0
    """How many seconds each statement and each reply is under way."""
    silent: bool = False
    _fault: Fault | None = None
    _strikes: Callable[[Statement], bool] = field(default=lambda _: False)
    _links: "set[_Link]" = field(default_factory=set["_Link"])

    def count(self) -> None:
        """Count statements from 1 again."""
        self.statements.clear()
        self.struck = 0

    def disturb(self, fault: Fault, strikes: Callable[[Statement], bool]) -> None:
        """Do this to each statement that `strikes` says, until `heal`."""
        self._fault, self._strikes = fault, strikes

    def silence(self) -> int:
        """Let nothing pass any more. Connections stay open and are accepted, and the server never hears of it.

        Says how many there are.
        """
        self.silent = True
        for link in self._links:
            link.silent = True
        return len(self._links)

    def reset(self) -> int:
        """Reset every connection; says how many there were."""
        for link in self._links:
            link.reset()
        return len(self._links)

    def heal(self) -> None:
        """Disturb nothing from now on. A connection that was silenced stays so: what it lost cannot be brought back."""
        self._fault, self.silent, self.latency = None, False, 0.0

    def end_silenced(self) -> None:
        """Reset the connections that were silenced: now the server hears that they are no more."""
        for link in self._links:
            if link.silent:
                link.reset()

    def fault_of(self, text: str, *, commits: bool) -> Fault | None:
        """Note a statement; answers what happens to it."""
        self.statements.append(text)
        statement = Statement(len(self.statements), text, commits)
        if self._fault is None or self.silent or not self._strikes(statement):
            return None
        self.struck += 1
        return self._fault

    async def serve(self, reader: StreamReader, writer: StreamWriter, server: tuple[str, int]) -> None:
        """Stand between a client and the server until both are gone, or this is cancelled."""
        link = _Link(self, reader, writer, silent=self.silent)
        self._links.add(link)
        try:
            with suppress(ConnectionError):
                await link.run(server)
        finally:
            self._links.discard(link)
            link.reset()


def running_proxy(database: Database) -> AbstractAsyncContextManager[Proxy]:
    """A proxy before a database's server, on a free port; closes every connection in the end."""
    server = database.engine.url
    assert server.host is not None
    assert server.port is not None
    return proxy_to(server.host, server.port)


@asynccontextmanager
async def proxy_to(host: str, port: int, *, listen: int = 0) -> AsyncGenerator[Proxy]:
    """A proxy before the server that listens there."""
    serving: set[asyncio.Task[None]] = set()

    def accept(reader: StreamReader, writer: StreamWriter) -> None:
        serving.add(asyncio.create_task(proxy.serve(reader, writer, (host, port))))

    listener = await asyncio.start_server(accept, HOST, listen)
    proxy = Proxy(HOST, listener.sockets[0].getsockname()[1])
    try:
        yield proxy
    finally:
        listener.close()
        for task in serving:
            task.cancel()
        outcomes = await asyncio.gather(*serving, return_exceptions=True)
        await listener.wait_closed()
        assert not [outcome for outcome in outcomes if isinstance(outcome, Exception)], outcomes


@dataclass(eq=False, repr=False)
class _Link:
    """One client's connection, and the one to the server that belongs to it."""

    proxy: Proxy
    reader: StreamReader
    writer: StreamWriter
    silent: bool
    server_writer: StreamWriter | None = None
    wrote: bool = False
    lost_reply: "_Reply | None" = None
    begins_reply: bool = True

    def reset(self) -> None:
        for writer in (self.writer, self.server_writer):
            if writer is not None and not writer.transport.is_closing():
                writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, _AT_ONCE)
                writer.transport.abort()

    async def run(self, server: tuple[str, int]) -> None:
        if self.silent:
            await self.until_gone(self.swallow())
            return
        server_reader, self.server_writer = await asyncio.open_connection(*server)
        async with asyncio.TaskGroup() as group:
            group.create_task(self.until_gone(self.pass_requests(self.server_writer)))
            group.create_task(self.until_gone(self.pass_replies(server_reader)))

    async def until_gone(self, passing: Awaitable[None]) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            await passing
        if not self.silent:  # else neither side hears that the other one went
            self.reset()

    async def swallow(self) -> None:
        while await self.reader.read(2**16):
            pass

    async def pass_requests(self, server: StreamWriter) -> None:
        while True:
            head, body = await _packet(self.reader)
            fault = self.fault_of(body) if head[3] == 0 else None
            if fault is Fault.RESET_BEFORE:
                self.reset()
            elif fault is Fault.ALL_RESET_BEFORE:
                self.proxy.reset()
            elif fault is Fault.SILENT_BEFORE:
                self.proxy.silence()
            elif fault is Fault.REPLY_LOST:
                self.lost_reply = _Reply()
            await asyncio.sleep(self.proxy.latency)
            if self.silent or server.transport.is_closing():
                continue
            if fault is Fault.SILENT_AFTER:
                self.proxy.silence()
            self.begins_reply = True
            server.write(head + body)
            await server.drain()

    async def pass_replies(self, server: StreamReader) -> None:
        while True:
            head, body = await _packet(server)
            if self.lost_reply is not None:
                if self.lost_reply.ends_with(body):
                    self.reset()
                continue
            if self.begins_reply:
                self.begins_reply = False
                await asyncio.sleep(self.proxy.latency)
            if not self.silent:
                self.writer.write(head + body)
                await self.writer.drain()

    def fault_of(self, command: bytes) -> Fault | None:
        if command[0] not in (_QUERY, _PING):
            return None
        text = command[1:].decode() if command[0] == _QUERY else PING
        commits = self.wrote and text == "COMMIT"
        self.wrote = text.startswith(_WRITING) or (self.wrote and text not in ("COMMIT", "ROLLBACK"))
        return self.proxy.fault_of(text, commits=commits)


class _Reply:
    """Follows a reply to its end: one packet, or the columns and the rows, each with an EOF behind them."""

    def __init__(self) -> None:
        self._first = True
        self._eofs = 0

    def ends_with(self, body: bytes) -> bool:
        """Whether the reply ends with this packet, which is the next one."""
        first, self._first = self._first, False
        self._eofs += body[0] == _EOF and len(body) < _EOF_LIMIT
        return body[0] == _ERROR or (first and body[0] == _OK) or self._eofs == 2


async def _packet(reader: StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readexactly(4)
    return head, await reader.readexactly(int.from_bytes(head[:3], "little"))
