"""What is thrown away, and when: callers' keys whose published time is over, and old reports."""

import asyncio
from datetime import timedelta

import structlog

from services.order import repository
from services.order.reconciliation_repository import forget_reconciliations
from services.shared.clock import Clock, utc_now
from services.shared.database import Database, Work
from services.shared.ids import reconciliation_id

_BATCH = 500
_PAUSE_SECONDS = 0.1

_log = structlog.get_logger(__name__)


class Housekeeping:
    """Deletes idempotency keys that are older than `keep_keys`, and the reconciliation's reports older than
    `keep_reports`. Several processes may do so at once."""

    def __init__(
        self,
        database: Database,
        *,
        keep_keys: timedelta,
        keep_reports: timedelta = timedelta(days=90),
        clock: Clock = utc_now,
    ) -> None:
        self._database = database
        self._keep_keys = keep_keys
        self._keep_reports = keep_reports
        self._clock = clock

    async def run(self, every: float) -> None:
        """Tidy up every so many seconds, until cancelled."""
        while True:
            try:
                await self.tidy()
            except Exception as error:  # whatever it was, the next round tries again
                _log.warning("what has expired was not all deleted", error=f"{type(error).__name__}: {error}")
            await asyncio.sleep(every)

    async def tidy(self) -> None:
        """Delete everything that has expired by now, the oldest first. Raises `DatabaseUnavailable`.

        Each batch is a short transaction of its own, and between two there is room for others to write.
        """
        keys_before = self._clock() - self._keep_keys
        reports_before = reconciliation_id(self._clock() - self._keep_reports, 0)
        await self._forget(lambda session: repository.forget_keys(session, before=keys_before, limit=_BATCH))
        await self._forget(lambda session: forget_reconciliations(session, before=reports_before, limit=_BATCH))

    async def _forget(self, batch: Work[bool]) -> None:
        more = True
        while more:
            more = await self._database.write(batch)
            await asyncio.sleep(_PAUSE_SECONDS)
