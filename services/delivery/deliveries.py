"""The rules of deliveries: one an order, none after it was called off, none called off after it arrived."""

from collections.abc import Collection, Sequence
from enum import StrEnum

from services.delivery import repository
from services.delivery.errors import DeliveryCanceled, DeliveryCompleted, OutOfStock, UnknownProduct
from services.delivery.stock import MovementKind
from services.delivery.tables import Delivery
from services.shared.clock import Clock, utc_now
from services.shared.database import Database, insert_if_new
from services.shared.errors import NotFound
from services.shared.summaries import DeliverySummary, Part, cut, end_of

_OF_ORDERS = (MovementKind.SALE, MovementKind.RESTORE)
_Rows = Sequence[tuple[str, str, str, int]]


class DeliveryState(StrEnum):
    """Where the goods are."""

    STARTED = "Started"
    DELIVERED = "Delivered"
    CANCELED = "Canceled"


class Deliveries:
    """Starts, completes and calls off deliveries."""

    def __init__(self, database: Database, clock: Clock = utc_now) -> None:
        self._database = database
        self._clock = clock

    async def start(self, *, order_id: str, product_id: str, qty: int) -> None:
        """Start an order's delivery, once, if the warehouse holds enough.

        Raises `OutOfStock`, `UnknownProduct`, `DeliveryCanceled`.
        """
        now = self._clock()
        delivery = Delivery(
            order_id=order_id,
            product_id=product_id,
            qty=qty,
            state=DeliveryState.STARTED,
            started_at=now,
            updated_at=now,
        )

        async def work(session: repository.AsyncSession) -> None:
            if not await insert_if_new(session, delivery):
                known = await repository.delivery_of_order(session, order_id)
                if known is None or known.state == DeliveryState.CANCELED:
                    raise DeliveryCanceled(order_id)
                return
            stock = await repository.stock_of(session, product_id)
            if stock is None:
                raise UnknownProduct(product_id)
            if stock.on_hand < qty:
                raise OutOfStock(product_id)

        await self._database.write(work)

    async def cancel(self, *, order_id: str, product_id: str, qty: int) -> bool:
        """Call an order's delivery off if it started, and see to it that it does not start later.

        Says whether it had started. Raises `DeliveryCompleted`.
        """
        now = self._clock()
        tombstone = Delivery(
            order_id=order_id, product_id=product_id, qty=qty, state=DeliveryState.CANCELED, updated_at=now
        )

        async def work(session: repository.AsyncSession) -> bool:
            # The change comes before the tombstone: a refused INSERT shares a lock on the row, and of many that then
            # all want to change it, MySQL lets one go on.
            if await call_off(session):
                return True
            if await insert_if_new(session, tombstone):
                return False
            known = await repository.delivery_of_order(session, order_id)
            if known is not None and known.state == DeliveryState.DELIVERED:
                raise DeliveryCompleted(order_id)
            if known is not None and known.state == DeliveryState.STARTED:  # it started between the two statements
                return await call_off(session)
            return known is not None and known.started_at is not None

        async def call_off(session: repository.AsyncSession) -> bool:
            return await repository.move_delivery(
                session, order_id, source=DeliveryState.STARTED, target=DeliveryState.CANCELED, at=now
            )

        return await self._database.write(work)

    async def complete(self, *, order_id: str) -> None:
        """Note that the goods arrived. Repeating it changes nothing. Raises `DeliveryCanceled`."""
        now = self._clock()

        async def work(session: repository.AsyncSession) -> None:
            if await repository.move_delivery(
                session, order_id, source=DeliveryState.STARTED, target=DeliveryState.DELIVERED, at=now
            ):
                return
            known = await repository.delivery_of_order(session, order_id)
            if known is None or known.state != DeliveryState.DELIVERED:
                raise DeliveryCanceled(order_id)

        await self._database.write(work)

    async def of_order(self, order_id: str) -> Delivery:
        """An order's delivery. Raises `NotFound` while none was started."""
        delivery = await self._database.read(lambda session: repository.delivery_of_order(session, order_id))
        if delivery is None or delivery.started_at is None:
            raise NotFound(order_id)
        return delivery

    async def of_orders(self, order_ids: Collection[str]) -> dict[str, Delivery]:
        """The deliveries of these orders by their ids, of those whose delivery was started."""
        found = await self._database.read(lambda session: repository.started_deliveries(session, order_ids))
        return {delivery.order_id: delivery for delivery in found}

    async def summaries(self, *, after: str, until: str, limit: int) -> Part[DeliverySummary]:
        """The goods of the orders behind one id and up to another, or as far as so many of them reach."""

        async def work(session: repository.AsyncSession) -> Part[DeliverySummary]:
            found = await repository.deliveries_between(session, after=after, until=until, limit=limit)
            sold = await repository.sold_between(session, _OF_ORDERS, after=after, until=until, limit=limit)
            ends = (end_of([row[0] for row in found], limit), end_of([order_id for order_id, _ in sold], limit))
            return cut(_summaries(found, sold), until, *ends)

        return await self._database.read(work)

    async def summaries_of(self, order_ids: Collection[str]) -> Sequence[DeliverySummary]:
        """The goods of these orders, of those of which there is anything."""

        async def work(session: repository.AsyncSession) -> Sequence[DeliverySummary]:
            found = await repository.deliveries_of(session, order_ids)
            return _summaries(found, await repository.sold_of(session, _OF_ORDERS, order_ids))

        return await self._database.read(work)


def _summaries(found: _Rows, sold: Sequence[tuple[str, int]]) -> list[DeliverySummary]:
    deliveries = {row[0]: row for row in found}
    pieces = {order_id: -int(moved) for order_id, moved in sold}
    summaries: list[DeliverySummary] = []
    for order_id in deliveries.keys() | pieces.keys():
        _, state, product_id, qty = deliveries.get(order_id, (order_id, None, None, 0))
        summaries.append(DeliverySummary(order_id, state, product_id, qty, pieces.get(order_id, 0)))
    return summaries
