"""The stores as a test says they are: the reconciliation's activities over dictionaries, on the teams' own queues."""

from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from temporalio import activity
from temporalio.client import Client
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker

from activities.contract import (
    DELIVERY_QUEUE,
    MARKETING_QUEUE,
    ORDER_QUEUE,
    PutRight,
    ReportReconciliation,
    Summarise,
    SummariseCharges,
    SummariseStock,
)
from services.order.comparison import Difference, Handled, Outcome, Remedy, remedy_of
from services.shared.summaries import (
    ChargeSummary,
    CouponSummary,
    DeliverySummary,
    OrderSummary,
    Part,
    RunSummary,
    S,
    StockSummary,
    cut,
    end_of,
)
from workflows.reconciliation import ReconciliationWorkflow

TEAMS = ("order", "delivery", "marketing")


@dataclass
class Stores:
    """What each store would say. `between` is called with the name of each that was asked: time goes by in a shop."""

    orders: dict[str, OrderSummary] = field(default_factory=dict[str, OrderSummary])
    runs: dict[str, RunSummary] = field(default_factory=dict[str, RunSummary])
    deliveries: dict[str, DeliverySummary] = field(default_factory=dict[str, DeliverySummary])
    coupons: dict[str, CouponSummary] = field(default_factory=dict[str, CouponSummary])
    charges: list[ChargeSummary] = field(default_factory=list[ChargeSummary])
    stock: dict[str, StockSummary] = field(default_factory=dict[str, StockSummary])
    failing: set[str] = field(default_factory=set[str])
    between: Callable[[str], None] = lambda _: None
    asked: list[tuple[str, Any]] = field(default_factory=list[tuple[str, Any]])
    put_right: list[Difference] = field(default_factory=list[Difference])
    reports: list[ReportReconciliation] = field(default_factory=list[ReportReconciliation])

    @property
    def handled(self) -> list[Handled]:
        return [one for report in self.reports for one in report.handled]

    @property
    def codes(self) -> set[tuple[str, str]]:
        """What was reported of whom."""
        return {(one.difference.subject, one.difference.code) for one in self.handled}

    def activities(self, team: str) -> list[Callable[..., Any]]:
        """A team's."""

        def part(name: str, rows: dict[str, S], command: Summarise) -> Part[S]:
            self._note(name, command)
            ids = sorted(one for one in rows if command.after < one <= command.until)[: command.limit]
            answer = cut([rows[one] for one in ids], command.until, end_of(ids, command.limit))
            if command.order_ids is not None:
                answer = Part([rows[one] for one in command.order_ids if one in rows], "")
            self.between(name)
            return answer

        @activity.defn(name="summarise_orders")
        async def orders(command: Summarise) -> Part[OrderSummary]:
            return part("orders", self.orders, command)

        @activity.defn(name="summarise_workflows")
        async def workflows(command: Summarise) -> Part[RunSummary]:
            return part("workflows", self.runs, command)

        @activity.defn(name="summarise_deliveries")
        async def deliveries(command: Summarise) -> Part[DeliverySummary]:
            return part("deliveries", self.deliveries, command)

        @activity.defn(name="summarise_coupons")
        async def coupons(command: Summarise) -> Part[CouponSummary]:
            return part("coupons", self.coupons, command)

        @activity.defn(name="summarise_charges")
        async def charges(command: SummariseCharges) -> list[ChargeSummary]:
            self._note("charges", command)
            told = [one._replace(order=self.orders.get(one.order_id)) for one in self.charges]
            if command.intent_ids is not None:
                return [one for one in told if one.intent_id in command.intent_ids]
            ids = [one.intent_id for one in told]
            first = 0 if command.after is None else ids.index(command.after) + 1
            return told[first : first + command.limit]

        @activity.defn(name="summarise_stock")
        async def stock(command: SummariseStock) -> list[StockSummary]:
            self._note("stock", command)
            self.between("stock")
            if command.product_ids is not None:
                return [self.stock[one] for one in command.product_ids if one in self.stock]
            return [self.stock[one] for one in sorted(self.stock) if one > command.after][: command.limit]

        @activity.defn(name="put_right")
        async def put_right(command: PutRight) -> list[Handled]:
            self._note("put_right", command)
            self.put_right += command.differences
            return [Handled(one, _outcome(one)) for one in command.differences]

        @activity.defn(name="report_reconciliation")
        async def report(command: ReportReconciliation) -> None:
            self.reports.append(command)

        return {
            "order": [orders, workflows, charges, put_right, report],
            "delivery": [deliveries, stock],
            "marketing": [coupons],
        }[team]

    def _note(self, name: str, command: Any) -> None:
        self.asked.append((name, command))
        if name in self.failing:
            raise ApplicationError("away", type="unavailable")


def _outcome(difference: Difference) -> Outcome:
    remedy = remedy_of(difference.code)
    if remedy is Remedy.NONE:
        return Outcome.REPORTED
    return Outcome.FLAGGED if remedy is Remedy.FLAG else Outcome.REPAIRED


@asynccontextmanager
async def working(client: Client, stores: Stores, teams: Iterable[str] = TEAMS) -> AsyncGenerator[None]:
    """The teams' workers, in the SDK's sandbox."""
    queues = {"order": ORDER_QUEUE, "delivery": DELIVERY_QUEUE, "marketing": MARKETING_QUEUE}
    async with AsyncExitStack() as stack:
        for team in teams:
            workflows: Any = {"workflows": [ReconciliationWorkflow]} if team == "order" else {}
            worker = Worker(client, task_queue=queues[team], activities=stores.activities(team), **workflows)
            await stack.enter_async_context(worker)
        yield


def moved(summary: OrderSummary, at: datetime, **changes: Any) -> OrderSummary:
    """An order that has moved on."""
    return summary._replace(version=summary.version + 1, updated_at=at, **changes)
