"""What is thrown away, and when: callers' keys whose published time is over."""

import asyncio
from datetime import timedelta

import structlog

from services.order import repository
from services.shared.clock import Clock, utc_now
from services.shared.database import Database

_BATCH = 500
_PAUSE_SECONDS = 0.1

_log = structlog.get_logger(__name__)


class Housekeeping:
    """Deletes idempotency keys that are older than `keep_keys`. Several processes may do so at once."""

    def __init__(self, database: Database, *, keep_keys: timedelta, clock: Clock = utc_now) -> None:
        self._database = database
        self._keep_keys = keep_keys
        self._clock = clock

    async def run(self, every: float) -> None:
        """Tidy up every so many seconds, until cancelled."""
        while True:
            try:
                await self.tidy()
            except Exception as error:  # whatever it was, the next round tries again
                _log.warning("expired keys were not all deleted", error=f"{type(error).__name__}: {error}")
            await asyncio.sleep(every)

    async def tidy(self) -> None:
        """Delete every key that has expired by now, the oldest first. Raises `DatabaseUnavailable`.

        Each batch is a short transaction of its own, and between two there is room for others to write.
        """
        before = self._clock() - self._keep_keys
        more = True
        while more:
            more = await self._database.write(
                lambda session: repository.forget_keys(session, before=before, limit=_BATCH)
            )
            await asyncio.sleep(_PAUSE_SECONDS)
