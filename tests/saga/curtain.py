"""A curtain that falls for many orders at once, and behind which the workflows' worker is replaced."""

import asyncio

from tests.saga.stage import Stage
from tests.saga.world import PATIENCE


class Curtain:
    """Falls when each of so many orders is ready for it, and rises when each has done its part behind it."""

    def __init__(self, stage: Stage, orders: int) -> None:
        self._stage = stage
        self._falling = asyncio.Barrier(orders)
        self._rising = asyncio.Barrier(orders)
        self._fallen, self._risen = asyncio.Event(), asyncio.Event()

    async def down(self) -> None:
        """Wait until no worker takes workflow tasks."""
        async with asyncio.timeout(PATIENCE):
            if await self._falling.wait() == 0:
                await self._stage.go("workflows")
                self._fallen.set()
            await self._fallen.wait()

    async def up(self) -> None:
        """Wait until another worker does, which remembers nothing."""
        async with asyncio.timeout(PATIENCE):
            if await self._rising.wait() == 0:
                await self._stage.come("workflows")
                self._risen.set()
            await self._risen.wait()

    async def tear(self) -> None:
        """Wait for nobody any more: one of the orders will not come."""
        await self._falling.abort()
        await self._rising.abort()
