"""What a process tells the platform: that its event loop turns, that it polls, and what it measures."""

import asyncio
import threading
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest
from prometheus_client import CollectorRegistry, Counter

from deploy.stack import HOST, take_ports
from services.shared.health import background, health, keep_alive
from services.shared.metrics import exposed

OFTEN = 0.01


def modified(file: Path) -> int:
    return file.stat().st_mtime_ns if file.exists() else 0


async def touched(file: Path, after: int) -> int:
    """When a file was touched, once it was after that."""
    async with asyncio.timeout(30):
        while (at := modified(file)) <= after:  # noqa: ASYNC110  (no event tells of it)
            await asyncio.sleep(OFTEN)
    return at


async def test_the_liveness_file_is_touched_while_the_event_loop_turns_and_no_longer(tmp_path: Path) -> None:
    file = tmp_path / "run" / "healthy"
    async with background(keep_alive(file, every=OFTEN)):
        first = await touched(file, 0)
        last = await touched(file, first)
        # The loop is blocked from here on, for many times as long as a touch takes.
        blocked = threading.Event()
        threading.Timer(100 * OFTEN, blocked.set).start()
        blocked.wait()
        late = time.time_ns() - modified(file)
        assert late > 50 * OFTEN * 1e9, "it was touched by something else than the event loop"
        await touched(file, last)


async def test_a_liveness_file_that_cannot_be_touched_is_tried_again(tmp_path: Path) -> None:
    place = tmp_path / "run"
    place.write_text("not a directory")
    async with background(keep_alive(place / "healthy", every=OFTEN)):
        await asyncio.sleep(5 * OFTEN)
        place.unlink()
        assert await touched(place / "healthy", 0)


@asynccontextmanager
async def serving(*, ready: bool, text: bytes = b"") -> AsyncGenerator[httpx2.AsyncClient]:
    async def metrics() -> bytes:
        return text

    [port] = take_ports({"health": 0}).values()
    async with (
        health(HOST, port, ready=lambda: ready, metrics=metrics),
        httpx2.AsyncClient(base_url=f"http://{HOST}:{port}", trust_env=False) as client,
    ):
        yield client


@pytest.mark.parametrize(("ready", "status"), [(True, 200), (False, 503)])
async def test_a_worker_is_alive_and_ready_only_while_it_polls(ready: bool, status: int) -> None:
    async with serving(ready=ready, text=b"# metrics") as client:
        assert (await client.get("/livez")).status_code == 200
        assert (await client.get("/readyz")).status_code == status
        metrics = await client.get("/metrics")
        assert metrics.text == "# metrics"
        assert metrics.headers["content-type"].startswith("text/plain; version=0.0.4")


async def test_metrics_that_somebody_else_keeps_follow_or_are_missed() -> None:
    registry = CollectorRegistry()
    Counter("own", "Ours", registry=registry).inc()

    async def other() -> bytes:
        return b"other_total 1.0"

    async def broken() -> bytes:
        raise OSError("gone")

    async def silent() -> bytes:
        await asyncio.Event().wait()
        raise AssertionError

    assert (await exposed(registry, other)).endswith(b"other_total 1.0")
    for away in (broken, silent, None):
        text = await exposed(registry, away)
        assert b"own_total 1.0" in text
        assert b"other" not in text
