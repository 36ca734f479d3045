"""What the reconciliation asks of the order team: its side, the provider's and the engine's, repairs, the report."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from temporalio import activity

from activities.contract import PutRight, ReportReconciliation, Summarise, SummariseCharges
from activities.failures import shop_errors
from activities.heartbeat import heartbeating
from services.order.comparison import Code, Handled
from services.order.reconciliation import Reconciler
from services.order.reconciliation_reports import ReconciliationReports
from services.order.tables import ReconciliationDifference
from services.shared.clock import Clock, utc_now
from services.shared.summaries import ChargeSummary, OrderSummary, Part, RunSummary

_LONGEST_DETAIL = 300


class ReconciliationActivities:
    """Commands of the reconciliation, turned into calls on the order team's services."""

    def __init__(self, reconciler: Reconciler, reports: ReconciliationReports, clock: Clock = utc_now) -> None:
        self._reconciler = reconciler
        self._reports = reports
        self._clock = clock

    @property
    def all(self) -> list[Callable[..., Any]]:
        """What a worker takes on."""
        return [
            self.summarise_orders,
            self.summarise_charges,
            self.summarise_workflows,
            self.put_right,
            self.report_reconciliation,
        ]

    @activity.defn
    @heartbeating
    @shop_errors
    async def summarise_orders(self, command: Summarise) -> Part[OrderSummary]:
        """Orders, where they stand, and their payments."""
        if command.order_ids is not None:
            return Part(await self._reconciler.summaries_of(command.order_ids), "")
        return await self._reconciler.summaries(after=command.after, until=command.until, limit=command.limit)

    @activity.defn
    @heartbeating
    @shop_errors
    async def summarise_charges(self, command: SummariseCharges) -> list[ChargeSummary]:
        """What the payment provider has, and the orders that it names."""
        if command.intent_ids is not None:
            return await self._reconciler.charges_of(command.intent_ids)
        return await self._reconciler.charges(
            since=command.since, until=command.until, after=command.after, limit=command.limit
        )

    @activity.defn
    @heartbeating
    @shop_errors
    async def summarise_workflows(self, command: Summarise) -> Part[RunSummary]:
        """What the engine has."""
        if command.order_ids is not None:
            return Part([*await self._reconciler.runs_of(command.order_ids)], "")
        return await self._reconciler.runs(after=command.after, until=command.until, limit=command.limit)

    @activity.defn
    @heartbeating
    async def put_right(self, command: PutRight) -> list[Handled]:
        """Do about each difference what is safe, and say what that was."""
        return [await self._reconciler.put_right(difference) for difference in command.differences]

    @activity.defn
    @heartbeating
    @shop_errors
    async def report_reconciliation(self, command: ReportReconciliation) -> None:
        """Write down how far the run has come and what it found."""
        now = self._clock()
        await self._reports.begin(command.reconciliation_id, command.started_at)
        await self._reports.note(
            [
                _noted(command.reconciliation_id, number, handled, now)
                for number, handled in enumerate(command.handled, start=command.first)
            ]
        )
        await self._reports.progress(
            command.reconciliation_id,
            compared=command.compared,
            found=command.found,
            repaired=command.repaired,
            not_compared=command.not_compared,
            finished_at=now if command.finished else None,
        )


def _noted(reconciliation_id: str, number: int, handled: Handled, at: datetime) -> ReconciliationDifference:
    difference = handled.difference
    of_product = difference.code is Code.STOCK_NOT_THE_SUM
    detail = f"{difference.detail}: {handled.done}" if handled.done else difference.detail
    return ReconciliationDifference(
        reconciliation_id=reconciliation_id,
        number=number,
        code=difference.code,
        order_id=None if of_product else difference.subject,
        product_id=difference.subject if of_product else None,
        detail=detail[:_LONGEST_DETAIL],
        outcome=handled.outcome or "",
        at=at,
    )
