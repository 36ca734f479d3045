"""How a process shows the engine who it is, by Temporal's standard variables: an API key, or a certificate."""

import asyncio
import ssl
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from temporalio.testing import WorkflowEnvironment

from deploy.stack import HOST
from tests.authority import Authority
from tests.engines import real_engine
from workflows.client import connect

# Of HPACK's Huffman code (RFC 7541, appendix B) as much as the key takes: a header's value goes over the wire in it.
_CODE = {"B": "1011101", "r": "101100", " ": "010100"} | {
    letter: f"{number:05b}" for number, letter in enumerate("012aceiost")
}
KEY = "seat10ace2isotice"


def compressed(value: str) -> bytes:
    bits = "".join(_CODE[letter] for letter in value)
    bits += "1" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


@dataclass
class Door:
    """The engine behind TLS, as Temporal Cloud is."""

    address: str = ""
    heard: bytearray = field(default_factory=bytearray)


@pytest.fixture(scope="module")
async def engine() -> AsyncIterator[WorkflowEnvironment]:
    async with real_engine() as engine:
        yield engine


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


@asynccontextmanager
async def behind_tls(engine: WorkflowEnvironment, authority: Authority, *, certificates: bool) -> AsyncGenerator[Door]:
    """Lets in who trusts the authority; with `certificates`, only who shows one of its own."""
    own = authority.certify("engine.example", HOST)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own.certificate, own.key)
    context.set_alpn_protocols(["h2"])
    if certificates:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(authority.file)
    door = Door()
    host, port = engine.client.service_client.config.target_host.split(":")
    passing: set[asyncio.Task[None]] = set()

    async def pass_on(reader: StreamReader, writer: StreamWriter, heard: bytearray) -> None:
        with suppress(OSError):
            while some := await reader.read(2**16):
                heard += some
                writer.write(some)
                await writer.drain()

    async def serve(reader: StreamReader, writer: StreamWriter) -> None:
        engine_reader, engine_writer = await asyncio.open_connection(host, int(port))
        try:
            ways = [
                asyncio.create_task(pass_on(reader, engine_writer, door.heard)),
                asyncio.create_task(pass_on(engine_reader, writer, bytearray())),
            ]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in (engine_writer, writer):
                one.transport.abort()

    def accept(reader: StreamReader, writer: StreamWriter) -> None:
        passing.add(asyncio.create_task(serve(reader, writer)))

    server = await asyncio.start_server(accept, HOST, 0, ssl=context)
    door.address = f"{HOST}:{server.sockets[0].getsockname()[1]}"
    try:
        yield door
    finally:
        server.close()
        for task in passing:
            task.cancel()
        await asyncio.gather(*passing, return_exceptions=True)


def name(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for variable, value in variables.items():
        monkeypatch.setenv(f"TEMPORAL_{variable}", value)


async def test_an_api_key_goes_over_tls_as_a_bearer_token(
    engine: WorkflowEnvironment, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with behind_tls(engine, authority, certificates=False) as door:
        name(monkeypatch, ADDRESS=door.address, API_KEY=KEY, TLS_SERVER_CA_CERT_PATH=str(authority.file))
        client = await connect(codec=None)
        assert await client.service_client.check_health()
    assert compressed(f"Bearer {KEY}") in door.heard


async def test_an_api_key_is_kept_from_a_server_that_is_not_trusted(
    engine: WorkflowEnvironment, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with behind_tls(engine, authority, certificates=False) as door:
        name(monkeypatch, ADDRESS=door.address, API_KEY=KEY)  # without another word, the system's CAs are trusted
        with pytest.raises(RuntimeError):
            await connect(codec=None)
    assert not door.heard


async def test_who_shows_a_certificate_is_let_in_and_who_does_not_is_refused(
    engine: WorkflowEnvironment, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = authority.certify("worker.example")
    async with behind_tls(engine, authority, certificates=True) as door:
        name(monkeypatch, ADDRESS=door.address, TLS_SERVER_CA_CERT_PATH=str(authority.file))
        with pytest.raises(RuntimeError):
            await connect(codec=None)
        name(monkeypatch, TLS_CLIENT_CERT_PATH=str(worker.certificate), TLS_CLIENT_KEY_PATH=str(worker.key))
        client = await connect(codec=None)
        assert await client.service_client.check_health()
