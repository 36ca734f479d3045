"""Processes of one program that are replaced one by one, as a Kubernetes Deployment does it: with maxUnavailable 0 and
maxSurge 1, the new one is ready before the old one is told to end.
"""

import asyncio
import signal
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tests.programs import Started

READY_SECONDS = 90.0
_LOOK_SECONDS = 0.1
Start = Callable[[str], AbstractAsyncContextManager[Started]]
"""Starts another process of a build."""


class NotReady(Exception):
    """A new process ended, or was not ready in time."""


@dataclass(frozen=True, kw_only=True)
class Replaced:
    """A process that has ended, because another one had taken its place."""

    name: str
    began: float
    """When its successor was started, on the event loop's clock …"""
    ended: float
    """… and when it had ended itself."""
    took: float
    """Seconds from the signal to its end."""
    status: int


class Deployment:
    """So many processes of one program, all ready as long as it is open; killed in the end if they will not go."""

    def __init__(self, name: str, start: Start, *, replicas: int = 1) -> None:
        self.name = name
        self._start = start
        self._replicas = replicas
        self._running: list[tuple[Started, AsyncExitStack]] = []

    async def __aenter__(self) -> Self:
        try:
            for _ in range(self._replicas):
                await self._add("0")
        except BaseException:
            await self._kill()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process, _ in self._running:
            if process.process.returncode is None:
                process.process.send_signal(signal.SIGTERM)
        await asyncio.gather(*(process.end() for process, _ in self._running), return_exceptions=True)
        await self._kill()

    async def roll(self, build: str, how: signal.Signals) -> list[Replaced]:
        """Replace all by processes of another build; the old ones are sent this signal. Raises `NotReady`."""
        return [await self._replace_oldest(build, how) for _ in range(self._replicas)]

    async def _replace_oldest(self, build: str, how: signal.Signals) -> Replaced:
        clock = asyncio.get_running_loop().time
        began = clock()
        await self._add(build)
        process, held = self._running.pop(0)
        async with held:
            signalled = clock()
            status = await process.end(how)
            ended = clock()
        return Replaced(name=self.name, began=began, ended=ended, took=ended - signalled, status=status)

    async def _add(self, build: str) -> None:
        async with AsyncExitStack() as stack:
            process = await stack.enter_async_context(self._start(build))
            try:
                async with asyncio.timeout(READY_SECONDS):
                    while await process.readiness() != 200:
                        if process.process.returncode is not None:
                            raise NotReady(f"{self.name}, build {build}, ended with {process.process.returncode}")
                        await asyncio.sleep(_LOOK_SECONDS)
            except TimeoutError:
                raise NotReady(f"{self.name}, build {build}, was not ready within {READY_SECONDS:.0f} s") from None
            self._running.append((process, stack.pop_all()))

    async def _kill(self) -> None:
        while self._running:
            await self._running.pop()[1].aclose()
