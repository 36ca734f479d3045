"""The order book: the status view and the timeline, written by an order's workflow and read by everybody."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from sqlalchemy.exc import DBAPIError

from services.order import repository
from services.order.metrics import OrderMetrics
from services.order.statuses import OrderState, TimelineEntry
from services.order.tables import Order, OrderEvent, OrderView
from services.shared.clock import Clock, utc_now
from services.shared.database import Database
from services.shared.errors import NotFound
from services.shared.together import Together

_PATIENCE = 0.5
"""Seconds that readers wait behind others, whose connection may have fallen silent, before they go past them."""


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


@dataclass(frozen=True)
class _Record:
    """What is to be noted of an order."""

    order_id: str
    state: OrderState
    timeline: Sequence[TimelineEntry]

    @property
    def events(self) -> list[OrderEvent]:
        return [
            OrderEvent(order_id=self.order_id, version=entry.version, type=entry.type, at=entry.at, detail=entry.detail)
            for entry in self.timeline
        ]

    @property
    def move(self) -> repository.Move:
        last = max(self.timeline, key=lambda entry: entry.version)
        return repository.Move(order_id=self.order_id, state=self.state, version=last.version, at=last.at)


class OrderBook:
    """Keeps where orders stand."""

    def __init__(self, database: Database, *, metrics: OrderMetrics | None = None, clock: Clock = utc_now) -> None:
        self._database = database
        self._metrics = metrics or OrderMetrics()
        self._clock = clock
        self._recorded: Together[_Record, None] = Together(self._record)
        self._found: Together[str, OrderReading] = Together(self._find, patience=_PATIENCE)

    async def record(self, *, order_id: str, state: OrderState, timeline: Sequence[TimelineEntry]) -> None:
        """Note what happened to an order and where it stands after that. Repeated or late, it changes nothing newer."""
        if not timeline:
            return
        with self._metrics.writes_waiting.track_inprogress():
            await self._recorded.ask(_Record(order_id, state, timeline))
        now = self._clock()
        for entry in timeline:
            self._metrics.write_lag.observe(max(0.0, (now - entry.at).total_seconds()))

    async def _record(self, records: Sequence[_Record]) -> Sequence[Exception | None]:
        # Orders in the sequence of their ids: two processes then wait for each other one way round only.
        in_turn = sorted(records, key=lambda record: record.order_id)

        async def work(session: repository.AsyncSession) -> None:
            await repository.add_events(session, [event for record in in_turn for event in record.events])
            await repository.move_views(session, [record.move for record in in_turn])

        try:
            await self._database.write(work)
        except DBAPIError as error:
            if len(records) == 1:
                return [error]
            return [(await self._record([record]))[0] for record in records]  # nobody is kept out by somebody else
        return [None] * len(records)

    async def get(self, order_id: str, *, user_id: str | None = None) -> OrderReading:
        """An order, of this user if one is given. Raises `NotFound`."""
        reading = await self._found.ask(order_id)  # in a round that begins after this call: it sees all before it
        if user_id not in (None, reading.order.user_id):
            raise NotFound(order_id)
        return reading

    async def _find(self, order_ids: Sequence[str]) -> Sequence[OrderReading | Exception]:
        rows = await self._database.read(lambda session: repository.orders_of_ids(session, {*order_ids}))
        found = {order.order_id: OrderReading(order, view) for order, view in rows}
        return [found.get(order_id) or NotFound(order_id) for order_id in order_ids]

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
