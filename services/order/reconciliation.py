"""The order team's part of the reconciliation: what it says of orders and charges, and how things are put right."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol

import structlog

from services.order import reconciliation_repository as repository
from services.order.book import OrderBook
from services.order.comparison import COUPON_WAIVED, Code, Difference, Handled, Outcome, Remedy, remedy_of
from services.order.provider import Charge, PaymentProvider
from services.order.statuses import (
    CancelReason,
    DeliveryStatus,
    EventType,
    OrderState,
    OrderStatus,
    PayStatus,
    TimelineEntry,
)
from services.order.tables import Order, OrderEvent, OrderView
from services.shared.database import Database
from services.shared.errors import ShopError
from services.shared.summaries import ChargeSummary, OrderSummary, Part, RunSummary, cut, end_of

_WITH_COUPON = (OrderStatus.COUPON_ISSUED, OrderStatus.DELIVERY_STARTED, OrderStatus.DELIVERED)
_ATTENTION = (EventType.ATTENTION_RAISED, EventType.ATTENTION_CLEARED)
_log = structlog.get_logger(__name__)


class Journal(NamedTuple):
    """What an order's workflow knows: where the order stands, and the whole of its timeline."""

    state: OrderState
    timeline: Sequence[TimelineEntry]


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Where an order stands by its view and its timeline: what a workflow is given that takes it up."""

    version: int
    state: OrderState
    done: list[EventType]
    skipped: list[str]
    """The undos that an operator did without."""


class Workflows(Protocol):
    """What the reconciliation asks of the engine. Any call may raise `Unavailable`."""

    async def runs(self, *, after: str, until: str, limit: int) -> Part[RunSummary]:
        """The latest runs of the workflows of the orders behind one id and up to another, or as far as so many reach.

        As the engine lists them, which may be seconds behind.
        """
        ...

    async def runs_of(self, order_ids: Collection[str]) -> Sequence[RunSummary]:
        """The latest runs of these orders' workflows, as they are now."""
        ...

    async def journal(self, order_id: str) -> Journal | None:
        """What an order's workflow knows, one that has ended included; nothing where it cannot be asked any more."""
        ...

    async def resume(self, order: Order, standing: Standing, *, undo: bool) -> None:
        """Start an order's workflow anew, to go on from what is done, or to undo it. One that runs is left alone.

        The undos that an operator did without are left out.
        """
        ...

    async def flag(self, order: Order, standing: Standing, *, about: str, detail: str) -> None:
        """Have an order say that it needs attention; where its workflow has ended, it is started anew for that."""
        ...


class Reconciler:
    """Says what the order team knows, and puts right what can be put right safely."""

    def __init__(self, database: Database, book: OrderBook, provider: PaymentProvider, workflows: Workflows) -> None:
        self._database = database
        self._book = book
        self._provider = provider
        self._workflows = workflows

    async def summaries(self, *, after: str, until: str, limit: int) -> Part[OrderSummary]:
        """The orders behind one id and up to another, or as far as so many of them reach."""

        async def work(session: repository.AsyncSession) -> list[OrderSummary]:
            found = await repository.order_summaries(session, after=after, until=until, limit=limit)
            return await _with_excuses(session, found)

        found = await self._database.read(work)
        return cut(found, until, end_of([order.order_id for order in found], limit))

    async def summaries_of(self, order_ids: Collection[str]) -> list[OrderSummary]:
        """These orders, of those that there are."""

        async def work(session: repository.AsyncSession) -> list[OrderSummary]:
            return await _with_excuses(session, await repository.order_summaries_of(session, order_ids))

        return await self._database.read(work)

    async def charges(self, *, since: datetime, until: datetime, after: str | None, limit: int) -> list[ChargeSummary]:
        """The payment intents that were made in a time, newest first, from behind one of them, so many."""
        found: list[Charge] = []
        more = True
        while more and len(found) < limit:
            page = await self._provider.list_charges(since=since, until=until, after=after)
            found += page.charges
            more, after = page.more, page.charges[-1].intent_id if page.charges else after
        return await self._with_orders(found)

    async def charges_of(self, intent_ids: Collection[str]) -> list[ChargeSummary]:
        """These payment intents."""
        return await self._with_orders([await self._provider.find_charge(intent_id) for intent_id in intent_ids])

    async def _with_orders(self, charges: Sequence[Charge]) -> list[ChargeSummary]:
        orders = {order.order_id: order for order in await self.summaries_of({one.order_id or "" for one in charges})}
        return [
            ChargeSummary(
                intent_id=charge.intent_id,
                order_id=charge.order_id or "",  # not one of ours: somebody uses the account for something else, too
                status=charge.status,
                received=charge.amount_received,
                refunded=charge.amount_refunded,
                currency=charge.currency,
                order=orders.get(charge.order_id or ""),
            )
            for charge in charges
        ]

    async def runs(self, *, after: str, until: str, limit: int) -> Part[RunSummary]:
        """See `Workflows`."""
        return await self._workflows.runs(after=after, until=until, limit=limit)

    async def runs_of(self, order_ids: Collection[str]) -> Sequence[RunSummary]:
        """See `Workflows`."""
        return await self._workflows.runs_of(order_ids)

    async def put_right(self, difference: Difference) -> Handled:
        """Do about a difference what is safe, and say what that was. Never raises; may be repeated."""
        try:
            return await self._put_right(difference)
        except ShopError as error:  # the next run tries again
            _log.warning("a difference could not be put right", code=difference.code, error=f"{error.code}: {error}")
            return Handled(difference, Outcome.REPORTED, f"not put right: {error.code}")
        except Exception as error:  # whatever it was, the others must not wait for it
            _log.exception("a difference could not be put right", code=difference.code)
            return Handled(difference, Outcome.REPORTED, f"not put right: {type(error).__name__}")

    async def _put_right(self, difference: Difference) -> Handled:
        remedy, order_id = remedy_of(difference.code), difference.subject
        if remedy is Remedy.NONE:
            return Handled(difference, Outcome.REPORTED)
        if remedy is Remedy.FLAG:
            return await self._flag(difference)
        if remedy is Remedy.RECORD:
            return await self._record(difference)
        undo = remedy is Remedy.UNDO
        journal = await self._workflows.journal(order_id) if undo else None
        if journal:  # it may have come further than it could tell
            await self._book.record(order_id=order_id, state=journal.state, timeline=journal.timeline)
        reading = await self._book.get(order_id)
        final = OrderStatus(reading.view.order_status).final
        if final and not reading.view.needs_attention:
            return Handled(difference, Outcome.REPAIRED, f"now reads {reading.view.order_status}")
        if undo and not journal and not final and await self._has_arrived(order_id):
            return Handled(difference, Outcome.REPORTED, "it was delivered, and its workflow cannot be asked")
        timeline = await self._book.timeline(order_id)
        await self._workflows.resume(reading.order, _standing(reading.view, timeline), undo=undo)
        what = "waits for a person" if final else "undoes it" if undo else "goes on"
        return Handled(difference, Outcome.REPAIRED, f"a new workflow {what}")

    async def _has_arrived(self, order_id: str) -> bool:
        """What the engine shows of a workflow that cannot be asked: the goods are with the customer."""
        runs = await self._workflows.runs_of([order_id])
        return any(run.order_status == OrderStatus.DELIVERED for run in runs)

    async def _record(self, difference: Difference) -> Handled:
        order_id = difference.subject
        journal = await self._workflows.journal(order_id)
        if journal is None:
            return Handled(difference, Outcome.REPORTED, "its workflow cannot be asked")
        view = (await self._book.get(order_id)).view
        reads = view.version
        # One that was taken up again and has nothing new to tell is no further than what it was given.
        knows = max((entry.version for entry in journal.timeline), default=reads)
        if knows < reads:
            ahead = difference._replace(
                code=Code.VIEW_AHEAD, detail=f"reads version {reads}, its workflow is at {knows}"
            )
            return Handled(ahead, Outcome.REPORTED)
        if not journal.timeline and journal.state.order_status != view.order_status:
            taken_up = f"its workflow was taken up as {journal.state.order_status}, and tells of nothing since"
            return Handled(difference, Outcome.REPORTED, taken_up)
        if knows == reads:  # the engine's list was behind, not the view
            repaired = reads > difference.version  # by an earlier attempt at this, or by the workflow itself
            return Handled(difference, Outcome.REPAIRED if repaired else None, f"now reads version {reads}")
        await self._book.record(order_id=order_id, state=journal.state, timeline=journal.timeline)
        return Handled(difference, Outcome.REPAIRED, f"now reads {journal.state.order_status}, version {knows}")

    async def _flag(self, difference: Difference) -> Handled:
        order_id = difference.subject
        timeline = await self._book.timeline(order_id)
        raised = [event for event in timeline if event.type == EventType.ATTENTION_RAISED]
        if any(event.detail.get("about") == difference.code for event in raised):
            return Handled(difference, Outcome.KNOWN)
        if any(event.version > difference.version for event in timeline if event.type not in _ATTENTION):
            # The same run may just have brought its view up to date: what was wrong with the old one may not be wrong
            # with this one, and a person would be told of an order that does not read so any more.
            return Handled(difference, None, "the order has moved: for the next run")
        reading = await self._book.get(order_id)
        standing = _standing(reading.view, timeline)
        await self._workflows.flag(reading.order, standing, about=difference.code, detail=difference.detail)
        return Handled(difference, Outcome.FLAGGED)


def _standing(view: OrderView, timeline: Sequence[OrderEvent]) -> Standing:
    skipped = [event.detail.get("undo", "") for event in timeline if event.type == EventType.COMPENSATION_SKIPPED]
    return Standing(
        version=view.version,
        state=_state(view),
        done=[EventType(event.type) for event in timeline],
        skipped=skipped,
    )


def _state(view: OrderView) -> OrderState:
    return OrderState(
        order_status=OrderStatus(view.order_status),
        pay_status=PayStatus(view.pay_status),
        delivery_status=DeliveryStatus(view.delivery_status),
        cancel_reason=CancelReason(view.cancel_reason) if view.cancel_reason else None,
        needs_attention=view.needs_attention,
        coupon_id=view.coupon_id,
        coupon_kind=view.coupon_kind,
        coupon_use_yn=view.coupon_use_yn,
    )


async def _with_excuses(session: repository.AsyncSession, orders: list[OrderSummary]) -> list[OrderSummary]:
    """Of those that may have an excuse, what was done without on purpose."""
    asked = [
        order.order_id
        for order in orders
        if order.order_status == OrderStatus.ORDER_CANCELED
        or (order.order_status in _WITH_COUPON and order.coupon_id is None)
    ]
    if not asked:
        return orders
    excused: dict[str, tuple[str, ...]] = {}
    for order_id, type, detail in await repository.excuses(session, asked):
        name = detail.get("undo", "") if type == EventType.COMPENSATION_SKIPPED else COUPON_WAIVED
        excused[order_id] = (*excused.get(order_id, ()), name)
    return [order._replace(excused=excused.get(order.order_id, ())) for order in orders]
