"""The runs of the reconciliation and what they found, for whoever is on call."""

from collections.abc import Sequence
from datetime import datetime

from services.order import reconciliation_repository as repository
from services.order.tables import Reconciliation, ReconciliationDifference
from services.shared.database import Database, insert_if_new
from services.shared.errors import NotFound

_RECENT = 24


class ReconciliationReports:
    """Keeps the reports. Every write may be repeated."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(self, reconciliation_id: str, at: datetime) -> None:
        """A run has begun."""
        run = Reconciliation(reconciliation_id=reconciliation_id, started_at=at)
        await self._database.write(lambda session: insert_if_new(session, run))

    async def progress(
        self,
        reconciliation_id: str,
        *,
        compared: int,
        found: int,
        repaired: int,
        not_compared: Sequence[str],
        finished_at: datetime | None = None,
    ) -> None:
        """How far a run has come; with `finished_at`, it has ended."""
        await self._database.write(
            lambda session: repository.update_reconciliation(
                session,
                reconciliation_id,
                compared=compared,
                found=found,
                repaired=repaired,
                not_compared=[*not_compared],
                finished_at=finished_at,
            )
        )

    async def note(self, differences: Sequence[ReconciliationDifference]) -> None:
        """What a run found. What has a number that was noted before is passed over."""

        async def work(session: repository.AsyncSession) -> None:
            for difference in differences:
                await insert_if_new(session, difference)

        await self._database.write(work)

    async def list(self, *, limit: int, before: str | None = None) -> Sequence[Reconciliation]:
        """The runs, newest first, starting after the run `before`."""
        return await self._database.read(
            lambda session: repository.reconciliations(session, limit=limit, before=before)
        )

    async def get(self, reconciliation_id: str) -> Reconciliation:
        """A run. Raises `NotFound`."""
        found = await self._database.read(lambda session: repository.reconciliation(session, reconciliation_id))
        if found is None:
            raise NotFound(reconciliation_id)
        return found

    async def differences(
        self, reconciliation_id: str, *, limit: int, after: int = 0
    ) -> Sequence[ReconciliationDifference]:
        """What a run found, in sequence, behind the number `after`."""
        return await self._database.read(
            lambda session: repository.differences_of_run(session, reconciliation_id, limit=limit, after=after)
        )

    async def last_finished(self) -> Reconciliation | None:
        """The newest run that came to its end, among the newest `_RECENT`: for metrics."""
        return next((run for run in await self.list(limit=_RECENT) if run.finished_at is not None), None)
