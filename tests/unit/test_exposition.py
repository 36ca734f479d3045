"""A process's own metrics, where those of the SDK do not come."""

import asyncio

import pytest
from prometheus_client import CollectorRegistry, Gauge

from services.shared.metrics import exposed
from workflows.telemetry import fetched


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", b"HTTP/1.1 500 No\r\n\r\nlost"]
)
async def test_a_process_tells_its_own_metrics_when_the_sdk_breaks_its_answer_off(answer: bytes) -> None:
    async def broken(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    registry = CollectorRegistry()
    Gauge("own", "Its own", registry=registry).set(7)
    async with await asyncio.start_server(broken, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        told = await exposed(registry, lambda: fetched(f"http://127.0.0.1:{port}/metrics"))
    assert b"own 7.0" in told
    assert b"half" not in told
    assert b"lost" not in told
