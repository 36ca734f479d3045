"""From an accepted order to its workflow: at once by the process that accepted it, or else by whoever sweeps."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta

import structlog

from services.order import repository
from services.order.tables import Order
from services.shared.clock import Clock, utc_now
from services.shared.database import Database
from services.shared.errors import Unavailable
from services.shared.telemetry import trace_of
from services.shared.together import Together

Start = Callable[[Order], Awaitable[None]]

_QUEUE_SIZE = 1000
_BATCH = 32
_PAUSE_SECONDS = 1.0

_log = structlog.get_logger(__name__)


class Inbox:
    """The accepted orders that have no workflow yet. `lease` is how long an order belongs to who claimed it."""

    def __init__(self, database: Database, *, lease: timedelta, clock: Clock = utc_now) -> None:
        self._database = database
        self._lease = lease
        self._clock = clock
        self._started: Together[str, None] = Together(self._mark_started)

    async def claim(self, limit: int) -> Sequence[Order]:
        """Take up to so many orders that belong to nobody, those that waited longest first.

        Never waits for somebody who is claiming, too: what they are taking is passed over. What a commit took whose
        reply was lost is not answered; it belongs to nobody once its lease has run out.
        """
        now = self._clock()
        # Mostly there is nothing. To find that out takes no lock, of which SQLite has one for all who write.
        if not await self._database.read(lambda session: repository.has_claimable(session, now)):
            return []
        until = now + self._lease
        return await self._database.write(lambda session: repository.claim(session, now=now, until=until, limit=limit))

    def lease_left(self, order: Order) -> float:
        """For how many seconds an order still belongs to who got it; none when the lease has run out."""
        return max(0.0, (order.claimed_until - self._clock()).total_seconds())

    async def mark_started(self, order_id: str) -> None:
        """Note that an order has its workflow, so that nobody claims it any more."""
        await self._started.ask(order_id)

    async def _mark_started(self, order_ids: Sequence[str]) -> Sequence[None]:
        now = self._clock()
        await self._database.write(lambda session: repository.mark_started(session, order_ids, now))
        return [None] * len(order_ids)


class Dispatcher:
    """Starts the workflows of accepted orders. `start` must be safe to repeat.

    An order whose start fails, or takes longer than its lease, is left as it is: it is claimed again when its lease
    has run out. An engine that is away is not asked for each order: who found it so pauses.
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

    async def serve(self, concurrency: int = 4) -> None:
        """Start what was offered, so many at once, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(self._serve())

    async def sweep(self, every: float) -> None:
        """Claim and start what has no workflow, every so many seconds, until cancelled.

        A start that hangs takes one of `_BATCH` places; the others go on.
        """
        starting: set[asyncio.Task[None]] = set()
        async with asyncio.TaskGroup() as group:
            while True:
                room = _BATCH - len(starting)
                orders = await self._claim(room)
                for order in orders:
                    task = group.create_task(self._begin(order))
                    starting.add(task)
                    task.add_done_callback(starting.discard)
                if len(orders) < room:
                    await asyncio.sleep(every)
                while len(starting) > _BATCH // 2:  # so that a claim is worth its transaction
                    await asyncio.wait(starting, return_when=asyncio.FIRST_COMPLETED)

    async def _serve(self) -> None:
        while True:
            order = await self._offered.get()
            if self._inbox.lease_left(order):  # else it is for the sweep, here or elsewhere
                await self._begin(order)

    async def _claim(self, limit: int) -> Sequence[Order]:
        try:
            return await self._inbox.claim(limit)
        except Exception as error:  # whatever it was, the next round tries again
            _log.warning("accepted orders could not be claimed", error=_told(error))
            return []

    async def _begin(self, order: Order) -> None:
        with structlog.contextvars.bound_contextvars(order_id=order.order_id), trace_of(order.traceparent):
            try:
                async with asyncio.timeout(self._inbox.lease_left(order)):
                    await self._start(order)
                await self._inbox.mark_started(order.order_id)
            except Exception as error:  # one order must not hold back the others
                _log.warning("an order's workflow was not started", order_id=order.order_id, error=_told(error))
                if isinstance(error, Unavailable):
                    await asyncio.sleep(_PAUSE_SECONDS)


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
