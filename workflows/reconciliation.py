"""The reconciliation: each hour what every store says of the orders of a month is compared, and put right where it can.

`run` is one run, top down: page by page through orders, charges and stock for suspicions, then a second look at those,
and what is found again of an order that has not moved is put right or reported. Nothing but the page and the suspicions
is in memory, and the history begins anew after a few pages.
"""

import asyncio
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple, TypeVar

from temporalio import workflow
from temporalio.common import RetryPolicy, VersioningBehavior
from temporalio.exceptions import ActivityError

with workflow.unsafe.imports_passed_through():
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
    from services.order.comparison import (
        Case,
        Difference,
        Handled,
        Outcome,
        Source,
        cases,
        charge_differences,
        order_differences,
        stock_differences,
    )
    from services.shared.ids import first_order_id, reconciliation_id
    from services.shared.summaries import (
        ChargeSummary,
        CouponSummary,
        DeliverySummary,
        OrderSummary,
        Part,
        RunSummary,
        StockSummary,
    )
    from workflows import meters

T = TypeVar("T")

PAGES_A_HISTORY = 15
"""After so many pages the history begins anew: each page is up to a fifth of a megabyte."""
MOST_SUSPICIONS = 2000
"""With so many, the second look comes before the next page."""
MOST_PUT_RIGHT = 1000
"""No run does more than that. Where more is wrong, something is wrong with all, and a person should look first."""
MOST_REPORTED = 10_000
"""What a run finds beyond that is counted, not listed."""
_BATCH = 50
_INTENTS = 500
_PRODUCTS = 20

_ATTEMPT = timedelta(seconds=60)
_PUT_RIGHT_ATTEMPT = timedelta(minutes=10)
_HEARTBEAT = timedelta(seconds=15)
_RETRY = RetryPolicy(initial_interval=timedelta(seconds=1), maximum_interval=timedelta(seconds=15))
# Without the order team's own books there is nothing to compare. Then the run fails, and the next one begins.
_BROKEN = timedelta(minutes=30)


class Suspicion(NamedTuple):
    """A difference that was seen once, and where to look again."""

    difference: Difference
    intent_id: str | None = None
    of_stock: bool = False


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run has come, from one history to the next."""

    reconciliation_id: str
    started_at: datetime
    phase: str = "orders"
    after: str = ""
    compared: int = 0
    found: int = 0
    repaired: int = 0
    put_right: int = 0
    listed: int = 0
    away: list[str] = field(default_factory=list[str])
    suspicions: list[Suspicion] = field(default_factory=list[Suspicion])


@dataclass(frozen=True, kw_only=True)
class Reconcile:
    """Compare the orders of so many days."""

    days: float = 30.0
    page: int = 500
    rest: timedelta = timedelta(seconds=60)
    """What has changed so lately is left to the next run, and so long after a suspicion comes the second look."""
    patience: timedelta = timedelta(minutes=2)
    """A store that is away so long is left out of the rest of the run: it must not hold up the others' comparison."""
    progress: Progress | None = None


@workflow.defn(name="ReconciliationWorkflow")
class ReconciliationWorkflow:
    """One run of the reconciliation. Started by its schedule alone, which never starts a second one beside it."""

    @workflow.init
    def __init__(self, asked: Reconcile) -> None:
        now = workflow.now()
        self._asked = asked
        self._now = asked.progress or Progress(
            reconciliation_id=reconciliation_id(now, workflow.random().getrandbits(80)),
            started_at=now,
            after=first_order_id(now - timedelta(days=asked.days)),
        )
        self._seen_at = now
        self._handled: list[Handled] = []

    @workflow.run
    async def run(self, asked: Reconcile) -> str:
        """The report's id."""
        if asked.progress is None:
            await self._report()
        phases = {"orders": self._orders, "charges": self._charges, "stock": self._stock}
        pages = 0
        while self._now.phase in phases:
            after = await phases[self._now.phase](self._now.after)
            if after is None:
                following = [*phases, "done"]
                self._move(phase=following[following.index(self._now.phase) + 1], after="")
            else:
                self._move(after=after)
            self._describe()
            if len(self._now.suspicions) >= MOST_SUSPICIONS:
                await self._look_again()
            pages += 1
            if pages >= PAGES_A_HISTORY or workflow.info().is_continue_as_new_suggested():
                await self._report()
                workflow.continue_as_new(replace(asked, progress=self._now))
        await self._look_again()
        await self._report(finished=True)
        meters.reconciled(workflow.now() - self._now.started_at)
        return self._now.reconciliation_id

    # The pages. Each looks for suspicions, and says where the next one begins, if there is one.

    async def _orders(self, after: str) -> str | None:
        end = first_order_id(self._now.started_at - self._asked.rest)
        before = workflow.now() - self._asked.rest
        wanted = Summarise(after=after, until=end, limit=self._asked.page)
        orders: Part[OrderSummary] = await self._ask("summarise_orders", wanted, Part[OrderSummary], "orders")
        runs, deliveries, coupons = await self._other_sides(replace(wanted, until=orders.until))
        parts = [part for part in (orders, runs, deliveries, coupons) if part is not None]
        until = min(part.until for part in parts)
        compared = [order for order in orders.rows if order.order_id <= until]
        for case in _cases(orders, runs, deliveries, coupons):
            if case.order_id <= until:
                self._suspect(Suspicion(one) for one in order_differences(case, before=before, away=self._now.away))
        self._move(compared=self._now.compared + len(compared))
        return None if until >= end else until

    async def _other_sides(
        self, wanted: Summarise
    ) -> tuple[Part[RunSummary] | None, Part[DeliverySummary] | None, Part[CouponSummary] | None]:
        """What engine, delivery and marketing say; nothing of those that are away."""
        return await asyncio.gather(
            self._try(Source.ENGINE, "summarise_workflows", wanted, Part[RunSummary], ORDER_QUEUE),
            self._try(Source.DELIVERY, "summarise_deliveries", wanted, Part[DeliverySummary], DELIVERY_QUEUE),
            self._try(Source.MARKETING, "summarise_coupons", wanted, Part[CouponSummary], MARKETING_QUEUE),
        )

    async def _charges(self, after: str) -> str | None:
        before = workflow.now() - self._asked.rest
        found = await self._charges_by(after=after or None, limit=_INTENTS)
        for charge in found:
            self._suspect(Suspicion(one, charge.intent_id) for one in charge_differences(charge, before=before))
        return found[-1].intent_id if len(found) >= _INTENTS else None

    async def _charges_by(self, **which: Any) -> list[ChargeSummary]:
        since = self._now.started_at - timedelta(days=self._asked.days)
        wanted = SummariseCharges(since=since, until=self._now.started_at - self._asked.rest, **which)
        return await self._try(Source.PROVIDER, "summarise_charges", wanted, list[ChargeSummary], ORDER_QUEUE) or []

    async def _stock(self, after: str) -> str | None:
        found = await self._stock_by(after=after, limit=_PRODUCTS)
        for stock in found:
            self._suspect(Suspicion(one, of_stock=True) for one in stock_differences(stock))
        return found[-1].product_id if len(found) >= _PRODUCTS else None

    async def _stock_by(self, **which: Any) -> list[StockSummary]:
        wanted = SummariseStock(**which)
        return await self._try(Source.DELIVERY, "summarise_stock", wanted, list[StockSummary], DELIVERY_QUEUE) or []

    def _suspect(self, found: Any) -> None:
        suspicions = [*found]
        if suspicions:
            self._seen_at = workflow.now()
            self._move(suspicions=[*self._now.suspicions, *suspicions])

    # The second look.

    async def _look_again(self) -> None:
        """Let some time pass, look at each suspicion again, and put right what is found to be just so."""
        suspicions = self._now.suspicions
        if not suspicions:
            return
        await self._report()  # whoever follows it sees how far it has come
        wait = self._seen_at + self._asked.rest - workflow.now()
        if wait > timedelta(0):
            await workflow.sleep(wait, summary="before the second look")
        for start in range(0, len(suspicions), _BATCH):
            batch = suspicions[start : start + _BATCH]
            again = {_key(one) for one in await self._seen_again(batch)}
            certain = [one.difference for one in batch if _key(one.difference) in again]
            if certain:
                await self._put_right(certain)
        self._move(suspicions=[])

    async def _seen_again(self, batch: list[Suspicion]) -> list[Difference]:
        before = workflow.now() - self._asked.rest
        products = [one.difference.subject for one in batch if one.of_stock]
        intents = [one.intent_id for one in batch if one.intent_id is not None]
        orders = {one.difference.subject for one in batch if one.intent_id is None and not one.of_stock}
        found: list[Difference] = []
        if orders:
            wanted = Summarise(order_ids=sorted(orders))
            sides = await self._other_sides(wanted)
            own = await self._ask("summarise_orders", wanted, Part[OrderSummary], "orders, for the second look")
            for case in _cases(own, *sides):
                found += order_differences(case, before=before, away=self._now.away)
        if intents:
            for charge in await self._charges_by(intent_ids=intents):
                found += charge_differences(charge, before=before)
        if products:
            for stock in await self._stock_by(product_ids=products):
                found += stock_differences(stock)
        return found

    async def _put_right(self, certain: list[Difference]) -> None:
        room = max(0, MOST_PUT_RIGHT - self._now.put_right)
        doing, left = certain[:room], certain[room:]
        handled = [Handled(one, Outcome.REPORTED, "too much at once: nothing was done") for one in left]
        if doing:
            handled += await workflow.execute_activity(
                "put_right",
                PutRight(differences=doing),
                result_type=list[Handled],
                start_to_close_timeout=_PUT_RIGHT_ATTEMPT,
                schedule_to_close_timeout=_BROKEN,
                heartbeat_timeout=_HEARTBEAT,
                retry_policy=_RETRY,
                summary=f"put right {len(doing)}",
            )
        handled = [one for one in handled if one.outcome is not None]
        for one in handled:
            meters.difference_found(one.difference.code, str(one.outcome))
        self._move(
            found=self._now.found + len(handled),
            repaired=self._now.repaired + sum(one.outcome is Outcome.REPAIRED for one in handled),
            put_right=self._now.put_right + sum(one.outcome in (Outcome.REPAIRED, Outcome.FLAGGED) for one in handled),
        )
        self._handled += handled[: MOST_REPORTED - self._now.listed]
        await self._report()

    # Plumbing.

    async def _ask(self, activity: str, command: Any, result: Any, summary: str, queue: str = ORDER_QUEUE) -> Any:
        return await workflow.execute_activity(
            activity,
            command,
            task_queue=queue,
            result_type=result,
            start_to_close_timeout=_ATTEMPT,
            schedule_to_close_timeout=_BROKEN,
            heartbeat_timeout=_HEARTBEAT,
            retry_policy=_RETRY,
            summary=summary,
        )

    async def _try(self, source: Source, activity: str, command: Any, result: type[T], queue: str) -> T | None:
        """What another store says; nothing where it is away, and from then on until the end of the run."""
        if source in self._now.away:
            return None
        try:
            return await workflow.execute_activity(
                activity,
                command,
                task_queue=queue,
                result_type=result,
                start_to_close_timeout=_ATTEMPT,
                schedule_to_close_timeout=self._asked.patience,
                heartbeat_timeout=_HEARTBEAT,
                retry_policy=_RETRY,
                summary=f"{source}'s side",
            )
        except ActivityError:
            self._move(away=[*self._now.away, source])
            return None

    async def _report(self, *, finished: bool = False) -> None:
        now, handled = self._now, self._handled
        self._handled = []
        self._move(listed=now.listed + len(handled))
        report = ReportReconciliation(
            reconciliation_id=now.reconciliation_id,
            started_at=now.started_at,
            compared=now.compared,
            found=now.found,
            repaired=now.repaired,
            not_compared=sorted(now.away),
            handled=handled,
            first=now.listed + 1,
            finished=finished,
        )
        await self._ask("report_reconciliation", report, None, "the report")
        self._describe()

    def _move(self, **changes: Any) -> None:
        self._now = replace(self._now, **changes)

    def _describe(self) -> None:
        now = self._now
        lines = [
            f"**{now.phase}** behind `{now.after}`",
            f"- compared: {now.compared} orders",
            f"- found: {now.found}, of these repaired: {now.repaired}; to be looked at again: {len(now.suspicions)}",
            *([f"- not compared, because away: {', '.join(now.away)}"] if now.away else []),
            f"- report: `GET /reconciliations/{now.reconciliation_id}`",
        ]
        workflow.set_current_details("\n".join(lines))


def _cases(
    orders: Part[OrderSummary],
    runs: Part[RunSummary] | None,
    deliveries: Part[DeliverySummary] | None,
    coupons: Part[CouponSummary] | None,
) -> list[Case]:
    return cases(
        orders.rows,
        runs.rows if runs else [],
        deliveries.rows if deliveries else [],
        coupons.rows if coupons else [],
    )


def _key(difference: Difference) -> tuple[str, str, int]:
    return difference.code, difference.subject, difference.version


# The engine refuses a behaviour that an unversioned worker names, so the class above has none.
@workflow.defn(name="ReconciliationWorkflow", versioning_behavior=VersioningBehavior.PINNED)
class PinnedReconciliation(ReconciliationWorkflow):
    """The same on a worker with a version: of minutes, it ends with the version that began it."""

    @workflow.init
    def __init__(self, asked: Reconcile) -> None:
        super().__init__(asked)

    @workflow.run
    async def run(self, asked: Reconcile) -> str:
        """The report's id."""
        return await super().run(asked)
