"""The shop's programs as processes of a test: with the settings that it names and no others, and gone in the end."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import IO

import httpx2

from deploy.local import ROOT
from deploy.stack import HOST
from deploy.supervisor import die_with

_OWN = ("STREET12_", "TEMPORAL_")
_END_SECONDS = 60.0
_REQUEST_SECONDS = 30.0


@dataclass(frozen=True)
class Started:
    """A program that runs, and how to talk to it where it answers HTTP."""

    process: asyncio.subprocess.Process
    http: httpx2.AsyncClient

    async def readiness(self) -> int | None:
        """What `/readyz` answers; nothing while nobody answers."""
        try:
            return (await self.http.get("/readyz")).status_code
        except httpx2.TransportError:
            return None

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send it this signal, and wait for its end: the exit status. Raises `TimeoutError`."""
        self.process.send_signal(number)
        async with asyncio.timeout(_END_SECONDS):
            return await self.process.wait()


@asynccontextmanager
async def started(
    *arguments: str,
    settings: Mapping[str, str],
    port: int = 0,
    stdout: int | IO[str] | None = None,
    stderr: int | IO[str] | None = None,
) -> AsyncGenerator[Started]:
    """`python …` with these settings and nothing that the person's shell is set up for; killed if it is still there in
    the end. `port` is where it answers.
    """
    test = os.getpid()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *arguments),
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith(_OWN)} | {**settings},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        preexec_fn=lambda: die_with(test),
    )
    try:
        async with httpx2.AsyncClient(
            base_url=f"http://{HOST}:{port}", trust_env=False, timeout=_REQUEST_SECONDS
        ) as http:
            yield Started(process, http)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@contextmanager
def clean_environment() -> Generator[None]:
    """Within this, this process, too, has none of the settings that the person's shell is set up for."""
    before = dict(os.environ)
    for name in before:
        if name.startswith(_OWN):
            del os.environ[name]
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
