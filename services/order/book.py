"""The order book: the status view and the timeline, written by an order's workflow and read by everybody."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from services.order import repository
from services.order.statuses import OrderState, TimelineEntry
from services.order.tables import Order, OrderEvent, OrderView
from services.shared.database import Database
from services.shared.errors import NotFound


@dataclass(frozen=True)
class OrderReading:
    """An order as it was accepted, and where it stands."""

    order: Order
    view: OrderView


class Progress(NamedTuple):
    """How far an order has come."""

    order_id: str
    version: int
    order_status: str


class OrderBook:
    """Keeps where orders stand."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def record(self, *, order_id: str, state: OrderState, timeline: Sequence[TimelineEntry]) -> None:
        """Note what happened to an order and where it stands after that. Repeated or late, it changes nothing newer."""
        if not timeline:
            return
        last = max(timeline, key=lambda entry: entry.version)

        async def work(session: repository.AsyncSession) -> None:
            await repository.add_events(session, [_event(order_id, entry) for entry in timeline])
            await repository.move_view(session, order_id, state=state, version=last.version, at=last.at)

        await self._database.write(work)

    async def get(self, order_id: str, *, user_id: str | None = None) -> OrderReading:
        """An order, of this user if one is given. Raises `NotFound`."""
        found = await self._database.read(lambda session: repository.order_with_view(session, order_id))
        if found is None or user_id not in (None, found[0].user_id):
            raise NotFound(order_id)
        return OrderReading(*found)

    async def list(
        self,
        *,
        user_id: str | None = None,
        order_status: str | None = None,
        needs_attention: bool | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int,
        before: str | None = None,
    ) -> Sequence[OrderReading]:
        """Orders that came at `since` or later and before `until`, newest first, starting after the order `before`."""
        found = await self._database.read(
            lambda session: repository.orders_with_views(
                session,
                user_id=user_id,
                order_status=order_status,
                needs_attention=needs_attention,
                since=since,
                until=until,
                limit=limit,
                before=before,
            )
        )
        return [OrderReading(*pair) for pair in found]

    async def timeline(self, order_id: str, *, after: int = 0) -> Sequence[OrderEvent]:
        """What happened to an order, from the version after `after` on."""
        return await self.timelines([order_id], after=after)

    async def timelines(self, order_ids: Collection[str], *, after: int = 0) -> Sequence[OrderEvent]:
        """What happened to these orders, of each from the version after `after` on, in sequence."""
        return await self._database.read(lambda session: repository.events_of_orders(session, order_ids, after=after))

    async def progress(self, order_ids: Collection[str]) -> Sequence[Progress]:
        """How far these orders have come, in one query."""
        found = await self._database.read(lambda session: repository.progress_of_orders(session, order_ids))
        return [Progress(*row) for row in found]


def _event(order_id: str, entry: TimelineEntry) -> OrderEvent:
    return OrderEvent(order_id=order_id, version=entry.version, type=entry.type, at=entry.at, detail=entry.detail)
