"""A payment simulator to test against: inside the test's own process, or as the real process."""

import asyncio
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from deploy.payment_ledger import Ledger
from deploy.payments import Dawdle, Simulator

ROOT = Path(__file__).parent.parent


class Dawdling:
    """A slow payment that takes exactly as long as a test likes."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.may_end = asyncio.Event()

    async def __call__(self) -> None:
        self.begun.set()
        await self.may_end.wait()


async def _two_seconds() -> None:
    await asyncio.sleep(2.0)


@asynccontextmanager
async def running_simulator(ledger: Path, dawdle: Dawdle = _two_seconds) -> AsyncGenerator[str]:
    """A simulator in this process on a free port, over that ledger file; yields its base URL."""
    books = Ledger(ledger)
    try:
        async with serving(Simulator(books, dawdle).app()) as url:
            yield url
    finally:
        books.close()


@asynccontextmanager
async def serving(app: web.Application) -> AsyncGenerator[str]:
    """Any web application on a free port; yields its base URL."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def simulator_process(*arguments: str) -> asyncio.subprocess.Process:
    """`python -m deploy.payments` with these arguments."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "deploy.payments", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )


@asynccontextmanager
async def simulator_of_its_own(ledger: Path) -> AsyncGenerator[tuple[asyncio.subprocess.Process, str]]:
    """The real process on a free port, killed in the end; yields it with its base URL."""
    process = await simulator_process("--port", "0", "--ledger", str(ledger))
    assert process.stdout is not None
    try:
        announcement = (await process.stdout.readline()).decode()
        yield process, announcement.split()[-1]
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def ledger_of(url: str) -> list[dict[str, Any]]:
    """The rows of the simulator's ledger."""
    async with aiohttp.ClientSession() as session, session.get(f"{url}/ledger") as reply:
        return (await reply.json())["items"]
