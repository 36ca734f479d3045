"""A wire passes everything on, until it is told to disturb; and its disturbances are what they are called."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from deploy.stack import HOST
from tests.faults.wire import Wire, running_wire

BOUND = 10.0


@dataclass
class Echo:
    """A server that answers each line with the same, and notes it."""

    heard: list[bytes] = field(default_factory=list[bytes])

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                self.heard.append(line)
                writer.write(line)
        except ConnectionError:
            pass
        finally:
            writer.close()


Connect = Callable[[Wire], Awaitable["Client"]]


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
async def wire(echo: Echo) -> AsyncIterator[Wire]:
    server = await asyncio.start_server(echo.serve, HOST, 0)
    async with running_wire(HOST, server.sockets[0].getsockname()[1]) as wire, server:
        yield wire


class Client:
    """One connection through a wire."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def say(self, line: bytes) -> bytes:
        """What is answered; nothing when the connection ends."""
        self.writer.write(line)
        async with asyncio.timeout(BOUND):
            return await self.reader.readline()


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    clients: list[Client] = []

    async def connect(wire: Wire) -> Client:
        clients.append(Client(*await asyncio.open_connection(HOST, wire.port)))
        return clients[-1]

    yield connect
    for client in clients:
        client.writer.transport.abort()


async def test_everything_passes(wire: Wire, echo: Echo, connect: Connect) -> None:
    one, other = await connect(wire), await connect(wire)
    large = b"x" * 60_000 + b"\n"
    assert (await one.say(b"a\n"), await other.say(large)) == (b"a\n", large)
    assert echo.heard == [b"a\n", large]
    assert wire.struck == 0


async def test_who_ends_a_connection_is_heard_at_the_other_end(wire: Wire, connect: Connect) -> None:
    client = await connect(wire)
    assert await client.say(b"bye\n") == b"bye\n"
    client.writer.write_eof()
    async with asyncio.timeout(BOUND):
        assert await client.reader.read() == b""


async def test_silence_holds_everything_up_until_it_heals(wire: Wire, echo: Echo, connect: Connect) -> None:
    old = await connect(wire)
    await old.say(b"before\n")
    wire.silence()
    new = await connect(wire)
    asking = [asyncio.create_task(client.say(line)) for client, line in ((old, b"old\n"), (new, b"new\n"))]
    done, _ = await asyncio.wait(asking, timeout=0.2)
    assert (done, echo.heard) == (set(), [b"before\n"])
    wire.heal()
    assert await asyncio.gather(*asking) == [b"old\n", b"new\n"]
    assert wire.struck == 1


async def test_a_reset_ends_every_connection_and_nothing_more(wire: Wire, connect: Connect) -> None:
    clients = [await connect(wire) for _ in range(3)]
    for client in clients:
        assert await client.say(b"a\n") == b"a\n"
    wire.reset()
    for client in clients:
        with pytest.raises(ConnectionResetError):
            await client.say(b"b\n")
    assert wire.struck == 3
    assert await (await connect(wire)).say(b"c\n") == b"c\n"


async def test_a_lost_reply_is_one_to_something_that_was_heard(wire: Wire, echo: Echo, connect: Connect) -> None:
    wire.lose_replies()
    lost = 0
    for number in range(9):
        client, line = await connect(wire), b"%d\n" % number
        try:
            assert await client.say(line) == line
        except ConnectionResetError:
            lost += 1
        assert echo.heard[-1] == line
    assert (lost, wire.struck) == (3, 3)
    wire.heal()
    assert await (await connect(wire)).say(b"a\n") == b"a\n"


async def test_who_connects_to_a_server_that_is_gone_is_reset(connect: Connect) -> None:
    server = await asyncio.start_server(Echo().serve, HOST, 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    async with running_wire(HOST, port) as wire:
        client = await connect(wire)
        with pytest.raises(ConnectionResetError):
            await client.say(b"a\n")
