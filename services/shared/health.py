"""How a process tells the platform that it is alive and ready, beside its metrics."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import structlog
from aiohttp import web

LIVENESS_SECONDS = 5.0
_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_log = structlog.get_logger(__name__)


@asynccontextmanager
async def background(coroutine: Coroutine[Any, Any, None]) -> AsyncGenerator[None]:
    """Run something beside the rest until that stops."""
    task = asyncio.create_task(coroutine)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def keep_alive(file: Path | None, *, every: float = LIVENESS_SECONDS) -> None:
    """Touch a file while the event loop turns, every so many seconds. Without a file, nothing."""
    while file is not None:
        try:
            await asyncio.to_thread(_touch, file)
        except OSError as error:  # a full disk comes and goes, and must not end what tells of it
            _log.warning("the liveness file cannot be touched", file=str(file), error=str(error))
        await asyncio.sleep(every)


def _touch(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()


@asynccontextmanager
async def health(
    host: str, port: int, *, ready: Callable[[], bool], metrics: Callable[[], Awaitable[bytes]]
) -> AsyncGenerator[None]:
    """`/livez` answers while the event loop turns, `/readyz` as `ready` says, `/metrics` for Prometheus.

    Port 0 takes any free one, which the log names.
    """

    async def livez(_: web.Request) -> web.Response:
        return web.json_response({"status": "alive"})

    async def readyz(_: web.Request) -> web.Response:
        if ready():
            return web.json_response({"status": "ready"})
        return web.json_response({"status": "not polling"}, status=503)

    async def exposition(_: web.Request) -> web.Response:
        return web.Response(body=await metrics(), headers={"Content-Type": _METRICS_TYPE})

    app = web.Application()
    app.add_routes([web.get("/livez", livez), web.get("/readyz", readyz), web.get("/metrics", exposition)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, host, port)
    await site.start()
    _log.info("health", addresses=[str(address) for address in runner.addresses])
    try:
        yield
    finally:
        await runner.cleanup()
