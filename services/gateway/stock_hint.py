"""What the delivery team knows about stock, as a hint before an order is taken; never a reason to keep it waiting."""

import asyncio
import time
from collections.abc import Callable, Sequence

import structlog

from services.delivery.stock import Warehouse
from services.shared.errors import Unavailable
from services.shared.together import Together

_log = structlog.get_logger(__name__)


class NoHint(Unavailable):
    """The delivery team did not say."""


class StockHint:
    """Asks the delivery team's database within `seconds`; no answer is no hint.

    After `failures` questions in a row without an answer it asks no more, but for one order each `cooldown_seconds`,
    until that one is answered: while the database is away, orders do not wait for it.
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
        self._asked = Together(self._on_hand)

    async def known_out(self, product_id: str, qty: int) -> bool:
        """Whether fewer pieces are known to be there than so many."""
        if not self._may_ask():
            return False
        try:
            on_hand = await self._asked.ask(product_id)
        except NoHint:
            return False
        return on_hand is not None and on_hand < qty

    def _may_ask(self) -> bool:
        if self._failed < self._tolerated:
            return True
        now = self._clock()
        if now < self._next_trial:
            return False
        self._next_trial = now + self._cooldown  # for whoever comes while this one tries
        return True

    async def _on_hand(self, product_ids: Sequence[str]) -> list[int | None]:
        try:
            async with asyncio.timeout(self._seconds):
                found = await self._warehouse.on_hand_of(set(product_ids))
        except Exception as error:  # whatever ails the delivery team, it must not keep an order out
            self._failed += 1
            self._next_trial = self._clock() + self._cooldown
            if self._failed == self._tolerated:
                _log.warning("stock is not asked about for a while", error=f"{type(error).__name__}: {error}")
            raise NoHint from error  # for those, too, who wait behind this round
        if self._failed >= self._tolerated:
            _log.info("stock is asked about again")
        self._failed = 0
        return [found.get(product_id) for product_id in product_ids]
