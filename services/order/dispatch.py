"""From an accepted order to its workflow: at once by the process that accepted it, or else by whoever sweeps."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta

import structlog

from services.order import repository
from services.order.tables import Order
from services.shared.clock import Clock, utc_now
from services.shared.database import Database

Start = Callable[[Order], Awaitable[None]]

_QUEUE_SIZE = 1000
_BATCH = 32

_log = structlog.get_logger(__name__)


class Inbox:
    """The accepted orders that have no workflow yet. `lease` is how long an order belongs to who claimed it."""

    def __init__(self, database: Database, *, lease: timedelta, clock: Clock = utc_now) -> None:
        self.lease = lease
        self._database = database
        self._clock = clock

    async def claim(self, limit: int) -> Sequence[Order]:
        """Take up to so many orders that belong to nobody, those that waited longest first.

        What a commit took whose reply was lost is not answered; it belongs to nobody once its lease has run out.
        """
        now = self._clock()
        until = now + self.lease
        found = await self._database.read(lambda session: repository.claimable(session, now, limit))
        if not found:
            return []

        async def work(session: repository.AsyncSession) -> list[Order]:
            return [
                order
                for order in found
                if await repository.claim(session, order.order_id, seen=order.claimed_until, until=until)
            ]

        return await self._database.write(work)

    async def mark_started(self, order_id: str) -> None:
        """Note that an order has its workflow, so that nobody claims it any more."""
        now = self._clock()
        await self._database.write(lambda session: repository.mark_started(session, order_id, now))


class Dispatcher:
    """Starts the workflows of accepted orders. `start` must be safe to repeat.

    An order whose start fails is left as it is: it is claimed again when its lease has run out.
    """

    def __init__(self, inbox: Inbox, start: Start) -> None:
        self._inbox = inbox
        self._start = start
        self._offered: asyncio.Queue[Order] = asyncio.Queue(_QUEUE_SIZE)

    def offer(self, order: Order) -> bool:
        """Hand over an order that was just accepted, to be started by `serve`. Says whether there was room for it."""
        try:
            self._offered.put_nowait(order)
        except asyncio.QueueFull:
            return False
        return True

    async def serve(self, concurrency: int = 8) -> None:
        """Start what was offered, so many at once, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(self._serve())

    async def sweep(self, every: float) -> None:
        """Claim and start what has no workflow, every so many seconds, until cancelled."""
        while True:
            orders = await self._claim()
            async with asyncio.TaskGroup() as group:
                for order in orders:
                    group.create_task(self._begin(order))
            if len(orders) < _BATCH:
                await asyncio.sleep(every)

    async def _serve(self) -> None:
        while True:
            await self._begin(await self._offered.get())

    async def _claim(self) -> Sequence[Order]:
        try:
            return await self._inbox.claim(_BATCH)
        except Exception as error:  # whatever it was, the next round tries again
            _log.warning("accepted orders could not be claimed", error=_told(error))
            return []

    async def _begin(self, order: Order) -> None:
        try:
            async with asyncio.timeout(self._inbox.lease.total_seconds()):
                await self._start(order)
            await self._inbox.mark_started(order.order_id)
        except Exception as error:  # one order must not hold back the others
            _log.warning("an order's workflow was not started", order_id=order.order_id, error=_told(error))


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
