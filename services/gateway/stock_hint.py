"""What the delivery team knows about stock, as a hint before orders are taken; never a reason to keep them waiting."""

import asyncio
import time
from collections.abc import Callable, Collection, Mapping

import structlog

from services.delivery.stock import Warehouse

_log = structlog.get_logger(__name__)


class StockHint:
    """Asks the delivery team's database, for `seconds` at most; no answer is no hint.

    After `failures` questions in a row without an answer it asks no more, but once each `cooldown_seconds`, until that
    is answered: while the database is away, orders do not wait for it. For one who asks at a time.
    """

    def __init__(
        self,
        warehouse: Warehouse,
        *,
        seconds: float = 0.1,
        failures: int = 3,
        cooldown_seconds: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._warehouse = warehouse
        self._seconds = seconds
        self._tolerated = failures
        self._cooldown = cooldown_seconds
        self._clock = clock
        self._failed = 0
        self._next_trial = 0.0

    async def on_hand(self, product_ids: Collection[str]) -> Mapping[str, int]:
        """How many pieces there are of these products, of those of which it is known. Never raises."""
        if self._failed >= self._tolerated and self._clock() < self._next_trial:
            return {}
        try:
            async with asyncio.timeout(self._seconds):
                found = await self._warehouse.on_hand_of(product_ids)
        except Exception as error:  # whatever ails the delivery team, it must not keep an order out
            self._failed += 1
            self._next_trial = self._clock() + self._cooldown
            if self._failed == self._tolerated:
                _log.warning("stock is not asked about for a while", error=f"{type(error).__name__}: {error}")
            return {}
        if self._failed >= self._tolerated:
            _log.info("stock is asked about again")
        self._failed = 0
        return found
